//! Limits on the length of each text and list of a request. A single table has all of them. It is
//! checked before a message is decoded, so that an oversized field is refused by name and takes no
//! memory. Encodings that no program writes, but decoders accept, are refused too if they could
//! carry more: groups, messages that occur twice and are merged, and fields that reach beyond their
//! message.
//!
//! `build.rs` generates [`MESSAGES`] from the `.proto` files, with the kind of each field. A test
//! checks that every text and list that a peer can send has its limit here.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::OnceLock;

use ergodic_common::expr::MAX_EXPR_BYTES;
use ergodic_common::grid::MAX_AXES;
use ergodic_common::metric::MAX_METRICS;
use ergodic_common::program::output::{MAX_OUTPUT_BYTES, MAX_PACKED_BYTES};
use ergodic_common::spec::measure::MAX_PREDICTIONS;
use ergodic_common::spec::source::MAX_TEXT_BYTES;
use prost::bytes::Buf as _;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::convert::{MAX_CAUSE_BYTES, MAX_CURVE_ROWS, MAX_ISA_BYTES, MAX_PINNED_FILES};

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

/// The kind of a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Text or bytes.
    Text,
    /// A message, by its index in [`MESSAGES`].
    Message(usize),
    /// A number of this many bytes; 0 for a varint.
    Number(usize),
}

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub struct MessageField {
    /// Number of the field.
    pub number: u32,
    /// Name of the field.
    pub name: &'static str,
    /// Whether the field is repeated.
    pub repeated: bool,
    /// Kind of the value.
    pub kind: FieldKind,
}

/// The fields of a message.
#[derive(Debug, Clone, Copy)]
pub struct MessageShape {
    /// Name of the message.
    pub name: &'static str,
    /// Fields of the message.
    pub fields: &'static [MessageField],
}

/// The limits of a field.
#[derive(Debug, Clone, Copy)]
pub struct FieldBound {
    /// The message.
    pub message: &'static str,
    /// The field.
    pub field: &'static str,
    /// Maximum items of a list; 1 for other fields.
    pub items: usize,
    /// Maximum bytes of a text, or of each text in a list.
    pub bytes: usize,
}

const fn text_bound(message: &'static str, field: &'static str, bytes: usize) -> FieldBound {
    FieldBound {
        message,
        field,
        items: 1,
        bytes,
    }
}

const fn list_bound(message: &'static str, field: &'static str, items: usize) -> FieldBound {
    FieldBound {
        message,
        field,
        items,
        bytes: 0,
    }
}

const fn text_list_bound(
    message: &'static str,
    field: &'static str,
    items: usize,
    bytes: usize,
) -> FieldBound {
    FieldBound {
        message,
        field,
        items,
        bytes,
    }
}

/// Maximum bytes of a name that people give, an id, or a moment such as "20 epochs".
const MAX_NAME_BYTES: usize = 1024;
/// Maximum bytes of a path.
const MAX_PATH_BYTES: usize = 4096;
/// Maximum number of statistics, pairs of cells, and similar items.
const MAX_SEVERAL: usize = 64;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;
/// Maximum leases of one worker, and trials of one lease.
const MAX_LEASES: usize = 65_536;
/// Maximum bytes of a piece of a checkpoint. The service has a stricter limit of its own.
const MAX_PIECE_BYTES: usize = 4 << 20;

/// The limits of all fields that are texts or lists. Other fields are as long as a number.
pub const FIELD_BOUNDS: &[FieldBound] = &[
    list_bound("AnnouncedExperiment", "metrics", MAX_SEVERAL),
    text_bound("AnnouncedExperiment", "config_schema", 65_536),
    text_bound("AnnouncedExperiment", "name", MAX_NAME_BYTES),
    text_bound("AxisChoice", "axis", MAX_NAME_BYTES),
    text_bound("AxisChoice", "value", MAX_NAME_BYTES),
    list_bound("CellChoice", "values", MAX_AXES),
    text_bound("CheckpointHead", "hash", HASH_BYTES),
    text_bound("CheckpointHead", "checksum", HASH_BYTES),
    text_bound("CheckpointHead", "sweep", MAX_NAME_BYTES),
    text_bound("CheckpointHead", "worker", MAX_NAME_BYTES),
    list_bound("CommitResultsRequest", "results", crate::MAX_BATCH_RESULTS),
    text_bound("CommitResultsRequest", "checksum", HASH_BYTES),
    text_bound("CommitResultsRequest", "sweep", MAX_NAME_BYTES),
    text_bound("CommitResultsRequest", "worker", MAX_NAME_BYTES),
    list_bound("CompareRequest", "baseline", MAX_AXES),
    text_bound("CompareRequest", "at", MAX_NAME_BYTES),
    text_bound("CompareRequest", "baseline_sweep", MAX_NAME_BYTES),
    text_list_bound("CompareRequest", "match_axes", MAX_AXES, MAX_NAME_BYTES),
    text_bound("CompareRequest", "metric", MAX_NAME_BYTES),
    text_bound("CompareRequest", "sweep", MAX_NAME_BYTES),
    text_bound("CurvesRequest", "cell_condition", MAX_EXPR_BYTES),
    text_bound("CurvesRequest", "metric", MAX_NAME_BYTES),
    text_bound("CurvesRequest", "sweep", MAX_NAME_BYTES),
    text_list_bound("CurvesRequest", "by", MAX_AXES, MAX_NAME_BYTES),
    text_list_bound("CurvesRequest", "stats", MAX_SEVERAL, MAX_NAME_BYTES),
    list_bound("DistanceRequest", "between", MAX_SEVERAL),
    text_bound("DistanceRequest", "at", MAX_NAME_BYTES),
    text_bound("DistanceRequest", "sweep", MAX_NAME_BYTES),
    text_list_bound("DrainWorkersRequest", "workers", 1000, 128),
    text_bound("EffectsRequest", "at", MAX_NAME_BYTES),
    text_bound("EffectsRequest", "metric", MAX_NAME_BYTES),
    text_bound("EffectsRequest", "sweep", MAX_NAME_BYTES),
    text_list_bound("EffectsRequest", "interaction", MAX_AXES, MAX_NAME_BYTES),
    text_bound("ExperimentMetric", "better", MAX_NAME_BYTES),
    text_bound("ExperimentMetric", "name", MAX_NAME_BYTES),
    text_bound("ExplainRequest", "sweep", MAX_NAME_BYTES),
    text_bound("ExtendRequest", "checksum", HASH_BYTES),
    text_bound("ExtendRequest", "sweep", MAX_NAME_BYTES),
    text_bound("FetchCheckpointRequest", "sweep", MAX_NAME_BYTES),
    text_bound("FetchCheckpointRequest", "worker", MAX_NAME_BYTES),
    text_bound("FetchRequest", "hash", HASH_BYTES),
    text_bound("FilePin", "hash", HASH_BYTES),
    text_bound("FilePin", "path", MAX_PATH_BYTES),
    text_bound("GetSweepRequest", "sweep", MAX_NAME_BYTES),
    text_bound("HasRequest", "hash", HASH_BYTES),
    list_bound("Heartbeat", "held", MAX_LEASES),
    list_bound("Heartbeat", "running", 4096),
    list_bound("Hello", "experiments", MAX_SEVERAL),
    list_bound("Hello", "held", MAX_LEASES),
    text_bound("Hello", "build", 128),
    text_bound("Hello", "name", 128),
    text_bound("Hello", "worker", 32),
    text_list_bound("Hello", "numerics", MAX_SEVERAL, 128),
    text_bound("KeepCheckpointRequest", "chunk", MAX_PIECE_BYTES),
    text_bound("LaunchRequest", "checksum", HASH_BYTES),
    text_bound("SampleSizeRequest", "metric", MAX_NAME_BYTES),
    text_bound("SampleSizeRequest", "sweep", MAX_NAME_BYTES),
    text_bound("NewTokenRequest", "note", MAX_NAME_BYTES),
    text_bound("NewTokenRequest", "role", MAX_NAME_BYTES),
    text_bound("PredictionsRequest", "sweep", MAX_NAME_BYTES),
    text_bound("PutRequest", "chunk", crate::transfer::CHUNK_BYTES),
    text_bound("PutRequest", "hash", HASH_BYTES),
    // Workers send the whole error text, of which the coordinator keeps 1 KiB.
    text_bound("Release", "why", 65_536),
    text_bound("RemoveRequest", "sweep", MAX_NAME_BYTES),
    text_bound("RevokeTokenRequest", "id", MAX_NAME_BYTES),
    text_bound("RowsRequest", "sweep", MAX_NAME_BYTES),
    text_bound("SpecSource", "cells", HASH_BYTES),
    list_bound("SpecSource", "files", MAX_PINNED_FILES),
    text_bound("SpecSource", "file", MAX_PATH_BYTES),
    text_bound("SpecSource", "text", MAX_TEXT_BYTES + 65_536),
    text_list_bound("SpecSource", "settings", 4096, 1 << 20),
    text_bound("StatusRequest", "sweep", MAX_NAME_BYTES),
    text_bound("SteerRequest", "sweep", MAX_NAME_BYTES),
    text_bound("TableRequest", "at", MAX_NAME_BYTES),
    text_bound("TableRequest", "cell_condition", MAX_EXPR_BYTES),
    text_bound("TableRequest", "metric", MAX_NAME_BYTES),
    text_bound("TableRequest", "sweep", MAX_NAME_BYTES),
    text_list_bound("TableRequest", "by", MAX_AXES, MAX_NAME_BYTES),
    text_list_bound("TableRequest", "stats", MAX_SEVERAL, MAX_NAME_BYTES),
    list_bound("TrialResult", "curve_steps", MAX_CURVE_ROWS),
    list_bound("TrialResult", "curve_values", 400_000),
    list_bound("TrialResult", "metrics", MAX_METRICS),
    list_bound("TrialResult", "prediction_steps", MAX_PREDICTIONS as usize),
    text_bound("OutputPart", "bytes", MAX_OUTPUT_BYTES),
    text_bound("OutputRequest", "sweep", MAX_NAME_BYTES),
    text_bound("TrialOutput", "packed", MAX_PACKED_BYTES),
    text_bound("TrialResult", "cause", MAX_CAUSE_BYTES),
    text_bound("TrialResult", "digest", HASH_BYTES),
    text_bound("TrialResult", "isa", MAX_ISA_BYTES),
    text_bound("TrialResult", "predictions", MAX_PREDICTIONS as usize),
    text_bound("TrialResult", "weights", HASH_BYTES),
    text_bound("TrialsRequest", "sweep", MAX_NAME_BYTES),
    text_list_bound(
        "TrialsRequest",
        "further_metrics",
        MAX_SEVERAL,
        MAX_EXPR_BYTES,
    ),
    text_bound("VarianceRequest", "at", MAX_NAME_BYTES),
    text_bound("VarianceRequest", "metric", MAX_NAME_BYTES),
    text_bound("VarianceRequest", "sweep", MAX_NAME_BYTES),
    text_bound("VerdictRequest", "claims", MAX_TEXT_BYTES),
    text_bound("VerdictRequest", "file", MAX_PATH_BYTES),
    text_bound("VerdictRequest", "sweep", MAX_NAME_BYTES),
    text_bound("WatchRequest", "sweep", MAX_NAME_BYTES),
    list_bound("Retracted", "cells", MAX_LEASES),
    list_bound("Retracted", "repeats", MAX_LEASES),
];

/// The limits by message of [`MESSAGES`] and field.
fn bounds_by_field() -> &'static [Vec<Option<&'static FieldBound>>] {
    static ALL: OnceLock<Vec<Vec<Option<&'static FieldBound>>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let table: HashMap<(&str, &str), &FieldBound> = FIELD_BOUNDS
            .iter()
            .map(|b| ((b.message, b.field), b))
            .collect();
        MESSAGES
            .iter()
            .map(|shape| {
                shape
                    .fields
                    .iter()
                    .map(|f| table.get(&(shape.name, f.name)).copied())
                    .collect()
            })
            .collect()
    })
}

/// Maximum number of fields of a message.
const MAX_FIELDS: usize = 64;
/// Maximum nesting of messages.
const MAX_DEPTH: usize = 16;

/// Checks an encoded message. Truncated messages pass, because the decoder refuses them and reads
/// no further than this function.
///
/// # Errors
/// A field exceeds its limit, or has an encoding that no program writes.
pub fn check_message(message: &str, bytes: &[u8]) -> Result<(), Status> {
    static PLACES: OnceLock<HashMap<&'static str, usize>> = OnceLock::new();
    let places = PLACES.get_or_init(|| {
        MESSAGES
            .iter()
            .enumerate()
            .map(|(at, shape)| (shape.name, at))
            .collect()
    });

    places
        .get(message)
        .map_or(Ok(()), |at| check_fields(*at, bytes, MAX_DEPTH).map(|_| ()))
}

/// Checks the fields of a message. Returns whether it could be read to its end.
fn check_fields(at: usize, mut bytes: &[u8], depth: usize) -> Result<bool, Status> {
    let shape = &MESSAGES[at];
    let bounds = &bounds_by_field()[at];
    let mut counts = [0_usize; MAX_FIELDS];

    while !bytes.is_empty() {
        let Some(tag) = read_varint(&mut bytes) else {
            return Ok(false);
        };
        let known = shape
            .fields
            .iter()
            .position(|field| u64::from(field.number) == tag >> 3);
        let Some(value) = read_value(shape, tag, &mut bytes)? else {
            return Ok(false);
        };

        let Some(at) = known else { continue };
        let field = &shape.fields[at];
        let items = if tag & 7 == 2 {
            count_items(field, value)
        } else {
            1
        };

        if let Some(bound) = bounds[at] {
            counts[at] += items;
            check_bound(field, bound, value, counts[at])?;
        }

        if let FieldKind::Message(inner) = field.kind {
            counts[at] += usize::from(!field.repeated);
            // A decoder merges a message field that occurs twice, so the sum of both would escape
            // the bounds.
            if !field.repeated && counts[at] > 1 {
                return Err(invalid_field_status(
                    shape.name,
                    field.name,
                    "comes more than once",
                ));
            }

            // The decoder reads past the end of a truncated message before it reports an error.
            if depth == 0 || !check_fields(inner, value, depth - 1)? {
                return Err(invalid_field_status(
                    shape.name,
                    field.name,
                    "cannot be read to its end",
                ));
            }
        }
    }

    Ok(true)
}

/// The bytes of a field's value, empty for a varint; `None` if they are truncated.
fn read_value<'a>(
    shape: &MessageShape,
    tag: u64,
    bytes: &mut &'a [u8],
) -> Result<Option<&'a [u8]>, Status> {
    Ok(match tag & 7 {
        0 => read_varint(bytes).map(|_| &[][..]),
        1 => take_bytes(bytes, 8),
        2 => read_varint(bytes).and_then(|len| take_bytes(bytes, usize::try_from(len).ok()?)),
        // The decoder skips groups and decodes what follows them, which these checks would not see.
        3 | 4 => {
            return Err(Status::invalid_argument(format!(
                "the message {} has a group, which none has",
                shape.name
            )));
        }
        5 => take_bytes(bytes, 4),
        _ => None,
    })
}

/// Refuses a text that is too long, and an entry beyond the maximum.
fn check_bound(
    field: &MessageField,
    bound: &FieldBound,
    value: &[u8],
    count: usize,
) -> Result<(), Status> {
    if field.kind == FieldKind::Text && value.len() > bound.bytes {
        let problem = format!(
            "has {} bytes; at most {} are taken",
            value.len(),
            bound.bytes
        );
        return Err(too_large_status(bound, &problem));
    }

    if field.repeated && count > bound.items {
        let problem = format!("has more than {} entries, which are the most", bound.items);
        return Err(too_large_status(bound, &problem));
    }

    Ok(())
}

/// Number of entries in one value: packed numbers have many.
fn count_items(field: &MessageField, value: &[u8]) -> usize {
    match field.kind {
        FieldKind::Number(0) => value.iter().filter(|byte| **byte < 0x80).count(),
        FieldKind::Number(width) => value.len() / width,
        _ => 1,
    }
}

fn too_large_status(bound: &FieldBound, what: &str) -> Status {
    invalid_field_status(bound.message, bound.field, what)
}

fn invalid_field_status(message: &str, field: &str, why: &str) -> Status {
    Status::invalid_argument(format!("the field {field} of {message} {why}"))
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * at).min(63);

        if *byte < 0x80 {
            return Some(number);
        }
    }

    None
}

fn take_bytes<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

/// Encodes and decodes messages as prost does, but checks what arrives first.
#[derive(Debug, Clone)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstCodec::<T, U>::default().decoder())
    }
}

/// Decodes messages within their limits.
#[derive(Debug)]
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Name + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The buffer holds a whole message in one piece, so the check needs no copy.
        if from.chunk().len() == from.remaining() {
            check_message(U::NAME, from.chunk())?;
        }
        self.0.decode(from)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tonic::{Code, Streaming};

    use crate::bounds::*;
    use crate::rpc::METHODS;
    use crate::v1;

    /// Messages that a peer can send to a coordinator, with all that lies in them.
    fn requests() -> BTreeSet<usize> {
        let at = |name: &str| {
            MESSAGES
                .iter()
                .position(|shape| shape.name == name)
                .expect("a message")
        };
        let mut waiting: Vec<usize> = METHODS.iter().map(|method| at(method.request)).collect();

        let mut found = BTreeSet::new();
        while let Some(shape) = waiting.pop() {
            if found.insert(shape) {
                let inner = |field: &MessageField| {
                    if let FieldKind::Message(at) = field.kind {
                        Some(at)
                    } else {
                        None
                    }
                };
                waiting.extend(MESSAGES[shape].fields.iter().filter_map(inner));
            }
        }

        found
    }

    #[test]
    fn every_text_and_every_list_of_a_request_has_a_bound() {
        assert!(
            MESSAGES
                .iter()
                .all(|shape| shape.fields.len() <= MAX_FIELDS)
        );
        let mut wanted = BTreeSet::new();

        for shape in requests().into_iter().map(|at| &MESSAGES[at]) {
            for field in shape
                .fields
                .iter()
                .filter(|field| field.repeated || field.kind == FieldKind::Text)
            {
                wanted.insert((shape.name, field.name));
            }
        }

        let bounded: BTreeSet<(&str, &str)> = FIELD_BOUNDS
            .iter()
            .map(|bound| (bound.message, bound.field))
            .collect();
        assert_eq!(
            wanted.difference(&bounded).collect::<Vec<_>>(),
            Vec::<&(&str, &str)>::new(),
            "without a bound"
        );

        assert_eq!(
            bounded.difference(&wanted).collect::<Vec<_>>(),
            Vec::<&(&str, &str)>::new(),
            "of no request"
        );
    }

    #[test]
    fn what_is_at_its_bound_passes_and_what_is_beyond_does_not() {
        let hello = |build: usize, numerics: usize, held: usize| v1::Hello {
            build: "x".repeat(build),
            numerics: vec!["cpu".into(); numerics],
            held: vec![v1::Fence::default(); held],
            ..v1::Hello::default()
        };
        let within = |hello: v1::Hello| {
            let message = Some(v1::session_request::Message::Hello(hello));
            let checked = check_message(
                "SessionRequest",
                &v1::SessionRequest { message }.encode_to_vec(),
            );
            checked.map_err(|status| status.message().to_owned())
        };
        assert_eq!(within(hello(128, 64, 65_536)), Ok(()));

        assert_eq!(
            within(hello(129, 1, 1)),
            Err("the field build of Hello has 129 bytes; at most 128 are taken".into())
        );

        for beyond in [hello(1, 65, 1), hello(1, 1, 65_537)] {
            assert!(within(beyond).is_err_and(|error| error.contains("entries")));
        }

        let retracted = |n: usize| v1::Retracted {
            cells: vec![1 << 40; n],
            repeats: vec![3; 7],
            fence: None,
        };
        assert!(check_message("Retracted", &retracted(65_536).encode_to_vec()).is_ok());

        assert!(check_message("Retracted", &retracted(65_537).encode_to_vec()).is_err());
        // Not packed is as many.
        let apart = |n: usize| check_message("Retracted", &[16_u8, 1].repeat(n));
        assert!(apart(65_536).is_ok() && apart(65_537).is_err());

        // Numbers of eight bytes are counted too, packed or not.
        let measured = |metrics: usize| v1::TrialResult {
            metrics: vec![0.5; metrics],
            ..v1::TrialResult::default()
        };
        let refused = |bytes: &[u8]| check_message("TrialResult", bytes).is_err();
        let packed = |n: usize| refused(&measured(n).encode_to_vec());
        let apart = |n: usize| refused(&measured(1).encode_to_vec().repeat(n));
        assert!(!packed(MAX_METRICS) && packed(MAX_METRICS + 1));
        assert!(!apart(MAX_METRICS) && apart(MAX_METRICS + 1));

        // What is no message is told of by whoever decodes it.
        for broken in [&[0xff_u8; 20][..], &[10, 200]] {
            assert!(check_message("Hello", broken).is_ok());
        }
    }

    /// A message as it arrives: not compressed, its length in four bytes, and its own bytes.
    async fn receive(hello: &v1::Hello) -> Result<Option<v1::Hello>, Status> {
        let encoded = hello.encode_to_vec();
        let length = (encoded.len() as u32).to_be_bytes();
        let frame = [&[0][..], &length, &encoded].concat();
        let body = String::from_utf8(frame).expect("its bytes are below 128");

        let decoder = BoundedCodec::<v1::Hello, v1::Hello>::default().decoder();
        let mut messages = Streaming::new_request(decoder, body, None, None);
        messages.message().await
    }

    #[tokio::test]
    async fn whoever_decodes_a_message_checks_it_first() {
        let hello = |worker: usize| v1::Hello {
            worker: "x".repeat(worker),
            ..v1::Hello::default()
        };
        let received = receive(&hello(32)).await.expect("it is at its bound");
        assert_eq!(received, Some(hello(32)));

        let refused = receive(&hello(33)).await.expect_err("it is beyond");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(
            refused.message(),
            "the field worker of Hello has 33 bytes; at most 32 are taken"
        );
    }

    #[test]
    fn nothing_comes_in_beside_the_bounds() {
        let why = |message: &str, bytes: &[u8]| {
            check_message(message, bytes)
                .map_err(|status| status.message().to_owned())
                .err()
                .unwrap_or_default()
        };

        let hello = |held: usize| {
            let hello = v1::Hello {
                held: vec![v1::Fence::default(); held],
                ..v1::Hello::default()
            };
            v1::SessionRequest {
                message: Some(v1::session_request::Message::Hello(hello)),
            }
            .encode_to_vec()
        };
        assert_eq!(why("SessionRequest", &hello(40_000)), "");

        // Two halves are one message to the decoder, which has too much in all.
        let twice = hello(40_000).repeat(2);
        assert!(v1::SessionRequest::decode(&*twice).is_ok());
        assert_eq!(
            why("SessionRequest", &twice),
            "the field hello of SessionRequest comes more than once"
        );

        // So is what stands behind a group of a field that nobody knows; the tags 899 and 900 begin and end one of 112.
        let long = v1::Hello {
            build: "x".repeat(129),
            ..v1::Hello::default()
        }
        .encode_to_vec();
        let behind = [&[0x83_u8, 7, 0x84, 7][..], &long].concat();
        assert!(v1::Hello::decode(&*behind).is_ok());

        for group in [&behind[..], &[11], &[12], &[0x84, 7]] {
            assert_eq!(
                why("Hello", group),
                "the message Hello has a group, which none has"
            );
        }

        // A message of two bytes, the text in which has 130.
        let beyond = [&[10_u8, 2, 0x22, 130, 1][..], &[b'x'; 130]].concat();
        assert_eq!(
            why("SessionRequest", &beyond),
            "the field hello of SessionRequest cannot be read to its end"
        );
    }
}
