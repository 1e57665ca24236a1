//! Compiles the `.proto` files without a system `protoc`, and lists what is in their messages.

use std::fmt::Write as _;
use std::path::Path;

use tonic_prost_build::{Config, configure};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=ergodic");
    let files = ["admin", "analysis", "common", "files", "worker", "sweep"]
        .map(|name| format!("ergodic/v1/{name}.proto"));
    let described = protox::compile(files, ["."])?;

    let mut names = Vec::new();
    let mut shapes = Vec::new();

    for message in described.file.iter().flat_map(|file| &file.message_type) {
        names.push(format!(".ergodic.v1.{}", message.name()));
        let fields = message.field.iter().map(|field| {
            // 3 is "repeated".
            let repeated = field.label.is_some_and(|label| label == 3);
            (
                field.number(),
                field.name().to_owned(),
                repeated,
                field.r#type.unwrap_or_default(),
                field.type_name().to_owned(),
            )
        });

        shapes.push((message.name().to_owned(), fields.collect::<Vec<_>>()));
    }

    let mut code = String::from("/// All messages.\npub const MESSAGES: &[MessageShape] = &[\n");
    for (name, fields) in &shapes {
        write!(code, "MessageShape {{ name: {name:?}, fields: &[")?;
        for (number, name, repeated, kind, of) in fields {
            let kind = match kind {
                9 | 12 => "FieldKind::Text".to_owned(),
                11 => {
                    format!(
                        "FieldKind::Message({})",
                        names
                            .iter()
                            .position(|name| name == of)
                            .ok_or("a message of ours")?
                    )
                }
                1 | 6 | 16 => "FieldKind::Number(8)".to_owned(),
                2 | 7 | 15 => "FieldKind::Number(4)".to_owned(),
                _ => "FieldKind::Number(0)".to_owned(),
            };

            write!(
                code,
                "MessageField {{ number: {number}, name: {name:?}, repeated: {repeated}, kind: {kind} }},"
            )?;
        }

        code += "] },\n";
    }

    code += "];\n/// All methods.\npub const METHODS: &[RpcMethod] = &[\n";
    for service in described.file.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            let path = format!("/ergodic.v1.{}/{}", service.name(), method.name());
            let request = method.input_type().trim_start_matches(".ergodic.v1.");
            let stream = method.client_streaming();
            writeln!(
                code,
                "RpcMethod {{ path: {path:?}, request: {request:?}, stream: {stream} }},"
            )?;
        }
    }

    code += "];\n";
    std::fs::write(
        Path::new(&std::env::var("OUT_DIR")?).join("messages.rs"),
        code,
    )?;

    let mut config = Config::new();
    config.enable_type_names();
    configure()
        .codec_path("crate::bounds::BoundedCodec")
        .compile_fds_with_config(described, config)?;

    Ok(())
}
