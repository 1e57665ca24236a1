//! Compiles the `.proto` files without a system `protoc`, and makes tables of what is in their messages (`src/bounds.rs`) and of what
//! their options say about methods (`src/rpc.rs`).

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Value,
};
use tonic_prost_build::{Config, FileDescriptorSet, configure};

/// The folder of the `.proto` files.
const FOLDER: &str = "ergodic/v1";
const PACKAGE: &str = "ergodic.v1";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=ergodic");
    let mut files = std::fs::read_dir(FOLDER)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<PathBuf>>>()?;
    files.sort();

    let mut compiler = protox::Compiler::new(["."])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(files)?;

    let pool = compiler.descriptor_pool();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("messages.rs"), list_messages(&pool)?)?;
    std::fs::write(out.join("methods.rs"), list_methods(&pool)?)?;

    // Options are for this program alone: no code is made of them, or of what they extend.
    let mut described = compiler.file_descriptor_set();
    described
        .file
        .retain(|file| file.package() == PACKAGE && !is_options_file(file.name()));

    let mut config = Config::new();
    config.enable_type_names();
    serialize_explanations(&mut config, &described);

    configure()
        .codec_path("crate::bounds::BoundedCodec")
        .compile_fds_with_config(described, config)?;

    Ok(())
}

fn is_options_file(name: &str) -> bool {
    Path::new(name) == Path::new(FOLDER).join("options.proto")
}

/// The messages with the kinds of their fields, as Rust.
fn list_messages(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let messages: Vec<MessageDescriptor> = pool
        .all_messages()
        .filter(|message| message.package_name() == PACKAGE && !message.is_map_entry())
        .collect();

    let mut code = String::from("/// All messages.\npub const MESSAGES: &[MessageShape] = &[\n");
    for message in &messages {
        write!(
            code,
            "MessageShape {{ name: {:?}, fields: &[",
            message.name()
        )?;
        for field in message.fields() {
            write!(
                code,
                "MessageField {{ number: {}, name: {:?}, repeated: {}, kind: {} }},",
                field.number(),
                field.name(),
                field.is_list(),
                field_kind(&field, &messages)?
            )?;
        }
        code += "] },\n";
    }

    Ok(code + "];\n")
}

fn field_kind(
    field: &FieldDescriptor,
    messages: &[MessageDescriptor],
) -> Result<String, Box<dyn Error>> {
    Ok(match field.kind() {
        Kind::String | Kind::Bytes => "FieldKind::Text".to_owned(),
        Kind::Message(inner) => {
            let at = messages.iter().position(|message| *message == inner);
            format!("FieldKind::Message({})", at.ok_or("a message of ours")?)
        }
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => "FieldKind::Number(8)".to_owned(),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => "FieldKind::Number(4)".to_owned(),
        _ => "FieldKind::Number(0)".to_owned(),
    })
}

/// The services, and the methods in the order of their paths, as Rust.
fn list_methods(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut services = String::new();
    let mut methods = Vec::new();

    for service in pool.services() {
        let roles = read_roles(&service.options(), pool, "service_roles")?;
        if roles.is_empty() {
            return Err(format!("{} has no service_roles", service.full_name()).into());
        }

        let of_service = list_roles(&roles);
        writeln!(
            services,
            "RpcService {{ name: {:?}, roles: {of_service} }},",
            service.full_name()
        )?;
        for method in service.methods() {
            methods.push((
                format!("/{}/{}", service.full_name(), method.name()),
                describe_method(pool, &service, &method)?,
            ));
        }
    }

    methods.sort();
    let mut code = format!("const SERVICES: &[RpcService] = &[\n{services}];\n");
    code += "/// All methods, in the order of their paths.\npub const METHODS: &[RpcMethod] = &[\n";
    for (_, method) in methods {
        code += &method;
    }

    Ok(code + "];\n")
}

fn describe_method(
    pool: &DescriptorPool,
    service: &ServiceDescriptor,
    method: &MethodDescriptor,
) -> Result<String, Box<dyn Error>> {
    let options = method.options();
    let mut roles = read_roles(&options, pool, "method_roles")?;
    if roles.is_empty() {
        roles = read_roles(&service.options(), pool, "service_roles")?;
    }

    let idempotency = options.get_field_by_name("idempotency_level");
    // 0 is "unknown".
    let is_idempotent = idempotency.is_some_and(|level| level.as_enum_number() != Some(0));
    let is_for_standby = read_option(&options, pool, "answered_by_standby")?.as_bool();

    Ok(format!(
        "RpcMethod {{ path: \"/{}/{}\", request: {:?}, stream: {}, roles: {}, is_idempotent: {is_idempotent}, \
         answered_by_standby: {} }},\n",
        service.full_name(),
        method.name(),
        method.input().name(),
        method.is_client_streaming(),
        list_roles(&roles),
        is_for_standby.unwrap_or_default(),
    ))
}

/// The roles of an option by their names in `ergodic/v1/options.proto`: `ROLE_USER`.
fn read_roles(
    options: &DynamicMessage,
    pool: &DescriptorPool,
    name: &str,
) -> Result<Vec<String>, Box<dyn Error>> {
    let known = pool
        .get_enum_by_name(&format!("{PACKAGE}.Role"))
        .ok_or("no Role")?;
    let value = read_option(options, pool, name)?;
    let roles = value.as_list().unwrap_or_default().iter();

    roles
        .map(|role| {
            let number = role.as_enum_number().unwrap_or_default();
            let role = known.get_value(number).filter(|_| number != 0);
            Ok(role.ok_or("no such role")?.name().to_owned())
        })
        .collect()
}

fn read_option(
    options: &DynamicMessage,
    pool: &DescriptorPool,
    name: &str,
) -> Result<Value, Box<dyn Error>> {
    let extension = pool
        .get_extension_by_name(&format!("{PACKAGE}.{name}"))
        .ok_or_else(|| format!("no option {name}"))?;
    Ok(options.get_extension(&extension).into_owned())
}

/// Roles as Rust: `ROLE_USER` is `TokenRole::User`.
fn list_roles(roles: &[String]) -> String {
    let variants = roles.iter().map(|role| {
        let (first, rest) = role.trim_start_matches("ROLE_").split_at(1);
        format!("TokenRole::{first}{}", rest.to_lowercase())
    });
    format!("&[{}]", variants.collect::<Vec<_>>().join(", "))
}

/// Findings of `ergodic explain` are printed as JSON under the names that they have in the messages.
fn serialize_explanations(config: &mut Config, described: &FileDescriptorSet) {
    let explained = described
        .file
        .iter()
        .filter(|file| file.name().ends_with("/explain.proto"))
        .flat_map(|file| &file.message_type)
        .map(|message| message.name());
    for message in explained.chain(["AxisValue"]) {
        config.type_attribute(
            format!(".ergodic.v1.{message}"),
            "#[derive(::serde::Serialize)]",
        );
    }

    // What was found stands beside the name of its kind, and an axis value alone.
    config.enum_attribute(
        ".ergodic.v1.ExplainFinding.finding",
        "#[serde(tag = \"kind\", rename_all = \"snake_case\")]",
    );
    // Without a dot in front, the path means the field and not the kinds within.
    config.field_attribute("ExplainFinding.finding", "#[serde(flatten)]");
    config.enum_attribute(".ergodic.v1.AxisValue.kind", "#[serde(untagged)]");
    config.message_attribute(".ergodic.v1.AxisValue", "#[serde(transparent)]");

    for (field, writer) in [
        ("ExplainFinding.actions", "write_actions"),
        ("ExplainStopped.state", "write_state"),
        ("ExplainAudits.state", "write_state"),
        ("ExplainAuditDue.state", "write_state"),
        ("ExplainEnd.outcome", "write_outcome"),
        ("ExplainAuditFound.finding", "write_audit_finding"),
    ] {
        config.field_attribute(
            format!(".ergodic.v1.{field}"),
            format!("#[serde(serialize_with = \"crate::json::{writer}\")]"),
        );
    }
}
