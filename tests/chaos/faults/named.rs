//! Faults by their names, for a run of one alone.

use super::Fault;

impl Fault {
    /// The fault of a name, with usual numbers.
    pub fn named(name: &str) -> Option<Fault> {
        Some(match name {
            "Kill" => Fault::Kill(0),
            "KillTwo" => Fault::KillTwo(0, 1),
            "KillAll" => Fault::KillAll,
            "Freeze" => Fault::Freeze(0, 5000),
            "FreezeInside" => Fault::FreezeInside(0, 5000),
            "CutBoth" => Fault::CutBoth(0, 1),
            "CutOneWay" => Fault::CutOneWay(0, 1),
            "Reject" => Fault::Reject(0, 1),
            "CutMesh" => Fault::CutMesh,
            "CutStore" => Fault::CutStore(0),
            "Isolate" => Fault::Isolate(0),
            "SlowLinks" => Fault::SlowLinks,
            "LossyLinks" => Fault::LossyLinks,
            "SlowStore" => Fault::SlowStore,
            "LossyStore" => Fault::LossyStore,
            "LossyClients" => Fault::LossyClients,
            "KillStore" => Fault::KillStore,
            "RestartStore" => Fault::RestartStore,
            "FreezeStore" => Fault::FreezeStore(3000),
            "Promote" => Fault::Promote,
            "FullDisk" => Fault::FullDisk,
            "StepClock" => Fault::StepClock(0, 3600),
            "Roll" => Fault::Roll,
            "RollFrozen" => Fault::RollFrozen(500),
            "RollRenewed" => Fault::RollRenewed,
            "NewCertificates" => Fault::NewCertificates,
            "NewAuthority" => Fault::NewAuthority,
            _ => return None,
        })
    }
}
