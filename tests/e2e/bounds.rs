//! Every text and every list of every request has a bound: whoever sends more, in whatever role, is told which field it is.

use ergodic_proto::bounds::{FIELD_BOUNDS, FieldBound, FieldKind, MESSAGES, MessageField};
use ergodic_proto::channel::connect;
use ergodic_proto::channel::connect::ClientChannel;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::rpc::{METHODS, RpcMethod};
use ergodic_tests::RawCodec;
use tonic::{Code, Request, Status};

use crate::auth::{guarded, token};
use crate::block_on;

fn varint(mut number: usize, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// A field that holds these bytes.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    varint((number as usize) << 3 | 2, &mut encoded);
    varint(bytes.len(), &mut encoded);
    encoded.extend(bytes);
    encoded
}

/// Just more than a bound allows, in each way.
fn beyond(bound: &FieldBound, of: &MessageField) -> Vec<Vec<u8>> {
    let mut ways = Vec::new();
    if of.kind == FieldKind::Text {
        ways.push(field(of.number, &vec![b'x'; bound.bytes + 1]));
    }

    if of.repeated {
        ways.push(match of.kind {
            FieldKind::Number(width) => {
                field(of.number, &vec![0; (bound.items + 1) * width.max(1)])
            }
            _ => field(of.number, &[]).repeat(bound.items + 1),
        });
    }

    ways
}

/// A field that no message has, as a group with nothing in it.
fn group() -> Vec<u8> {
    let mut encoded = Vec::new();
    [3, 4]
        .iter()
        .for_each(|kind| varint(1000 << 3 | kind, &mut encoded));
    encoded
}

/// Requests of a method that are as they should be, but for one field that is too large, or for what would let one in; each with
/// what is to be told of it.
fn too_large(method: &RpcMethod) -> Vec<(String, Vec<u8>)> {
    let at = MESSAGES
        .iter()
        .position(|shape| shape.name == method.request)
        .expect("a message");
    let mut found = Vec::new();

    // Messages, and in which fields they lie.
    let mut waiting = vec![(at, Vec::<u32>::new())];
    while let Some((at, path)) = waiting.pop() {
        let name = MESSAGES[at].name;
        let wrap = |bytes: Vec<u8>| {
            path.iter()
                .rev()
                .fold(bytes, |bytes, number| field(*number, &bytes))
        };
        found.push((format!("the message {name} has a group"), wrap(group())));

        for of in MESSAGES[at].fields {
            let bound = FIELD_BOUNDS
                .iter()
                .find(|bound| (bound.message, bound.field) == (name, of.name));
            let mut ways = bound.map_or_else(Vec::new, |bound| beyond(bound, of));

            if let FieldKind::Message(inner) = of.kind {
                waiting.push((inner, [&path[..], &[of.number]].concat()));
                if !of.repeated {
                    ways.push(field(of.number, &[]).repeat(2));
                }
            }

            found.extend(
                ways.into_iter()
                    .map(|bytes| (format!("the field {} of {name} ", of.name), wrap(bytes))),
            );
        }
    }

    found
}

async fn ask(connection: &ClientChannel, method: &RpcMethod, bytes: Vec<u8>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(connection.clone());
    client
        .ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(method.path);

    let messages = tokio_stream::once(bytes);
    let answer = client
        .streaming(Request::new(messages), path, RawCodec)
        .await?;
    answer.into_inner().message().await.map(|_| ())
}

#[test]
fn what_is_larger_than_its_bound_is_refused_by_name_in_every_role() {
    let mut cluster = guarded(&["--rate-limit", "0"]);
    let admin = cluster.path("store/auth/admin.token");
    let tokens = [
        admin,
        token(&cluster, "user", &[]),
        token(&cluster, "worker", &[]),
    ];

    let mut refused = 0;
    let mut turned_away = 0;
    block_on(async {
        for token in &tokens {
            let access = ClientAuth::default()
                .with_token_file(Some(token.as_path()))
                .expect("a token");
            let connection = connect::connect_now(&cluster.url, &access)
                .await
                .expect("it lets us in");

            for method in METHODS {
                for (what, bytes) in too_large(method) {
                    let status = ask(&connection, method, bytes)
                        .await
                        .expect_err(method.path);
                    match status.code() {
                        Code::InvalidArgument if status.message().contains(&what) => refused += 1,
                        // Not everybody may ask everything.
                        Code::PermissionDenied if !token.ends_with("admin.token") => {
                            turned_away += 1
                        }
                        _ => panic!("{} did not refuse {what}: {status}", method.path),
                    }
                }
            }
        }
    });

    assert!(
        refused > 150 && turned_away > 20,
        "{refused} refused, {turned_away} turned away"
    );
    cluster.ask(&["list"]);
    let held = cluster.peak_memory_mib();
    assert!(held < 250, "the coordinator holds {held} MiB");

    let log = cluster.take_coordinator().log();
    assert!(!log.contains("panicked"), "{log}");
}
