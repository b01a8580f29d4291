//! Compiles `proto/` with protox, so that nobody installs protoc.
//!
//! The descriptor set that the binary embeds is encoded from protox's own file
//! descriptors: going through `prost_types` would drop the custom option
//! `simpul.auth.v1.access`, which is the policy.

use std::error::Error;
use std::path::PathBuf;

use prost_build::{Service, ServiceGenerator};

const FILES: [&str; 10] = [
    "simpul/auth/v1/auth.proto",
    "simpul/money/v1/money.proto",
    "simpul/identity/v1/identity.proto",
    "simpul/chat/v1/chat.proto",
    "simpul/payment/v1/payment.proto",
    "simpul/transaction/v1/transaction.proto",
    "simpul/sandbox/v1/sandbox.proto",
    "simpul/cluster/v1/link.proto",
    "simpul/cluster/v1/cluster.proto",
    "simpul/operate/v1/operate.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=src/store/migrations");
    println!("cargo:rerun-if-changed=src/payment/provider/sandbox/migrations");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut config = prost_build::Config::new();
    // Entries that come over a link are slices of what was received.
    config.bytes([".simpul.cluster.v1.RoomAppend.frames"]);
    config.service_generator(Box::new(ChatApart::new()));
    config.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Generates clients whole, and servers without `ChatService.Chat`: that method
/// is served by the chat module's own body, which hands out slices of the log
/// that tonic's codec would copy for every reader.
struct ChatApart {
    client: Box<dyn ServiceGenerator>,
    server: Box<dyn ServiceGenerator>,
}

impl ChatApart {
    fn new() -> Self {
        let builder = || tonic_prost_build::configure();
        Self {
            client: builder().build_server(false).service_generator(),
            server: builder().build_client(false).service_generator(),
        }
    }
}

impl ServiceGenerator for ChatApart {
    fn generate(&mut self, service: Service, buf: &mut String) {
        let mut served = service.clone();
        served
            .methods
            .retain(|method| !(service.proto_name == "ChatService" && method.proto_name == "Chat"));
        self.client.generate(service, buf);
        self.server.generate(served, buf);
    }

    fn finalize(&mut self, buf: &mut String) {
        self.client.finalize(buf);
        self.server.finalize(buf);
    }
}
