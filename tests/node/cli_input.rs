//! What the command line is given that it cannot use: said, never swallowed.

use std::process::Stdio;

use crate::support::{Node, command};

fn run(node: &Node, args: &[&str], input: &[u8], full: bool) -> (Option<i32>, String, String) {
    use std::io::Write;
    let full = full.then(|| std::fs::OpenOptions::new().write(true).open("/dev/full"));
    let out = full.map_or_else(Stdio::piped, |file| file.expect("a full device").into());
    let mut child = command(node.dir())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("a child");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_line_that_is_no_text_is_refused_and_the_others_are_sent() {
    let node = Node::start();
    node.ok(&["room", "create", "lobby", "--as", "alice"]);
    let chat = ["chat", "lobby", "--as", "alice"];
    let (code, out, err) = run(&node, &chat, b"good1\n\xff\xfe bad\ngood2\n", false);
    assert_eq!(code, Some(64), "{err}");
    assert_eq!(out.matches("sent").count(), 2, "{out}");
    assert!(err.contains("line 2") && err.contains("UTF-8"), "{err}");

    let (code, _, err) = run(&node, &chat, b"x\n", true);
    assert_eq!(code, Some(69), "{err}");
    assert!(err.contains("cannot write the output"), "{err}");

    let (code, _, err) = run(&node, &["whoami", "--as", "alice@other.domain"], b"", false);
    assert_eq!(code, Some(64), "{err}");
    assert!(err.contains("dev.simpul"), "{err}");
}
