//! How long each text and each list of a request may be: one table for all of them, looked at before a message is taken apart, so
//! that what is too large is refused by name and takes no room. What nobody writes and a decoder takes all the same is refused, too,
//! where more could come in by it: groups, messages that come twice and are joined, and fields that reach beyond their message.
//!
//! `build.rs` makes [`MESSAGES`] out of the `.proto` files: which field of a message is what. A test holds the table to it: every
//! text and list that a peer can send has its bound here.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::OnceLock;

use ergodic_common::grid::MAX_AXES;
use ergodic_common::metric::MAX_METRICS;
use ergodic_common::spec::{MAX_PREDICTIONS, MAX_TEXT};
use prost::bytes::Buf as _;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::convert::{MAX_CAUSE, MAX_CURVE, MAX_FILES, MAX_ISA};

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text or bytes.
    Text,
    /// A message, by its place among [`MESSAGES`].
    Message(usize),
    /// A number of so many bytes; 0 where it takes as many as it needs.
    Number(usize),
}

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// Whether there may be several.
    pub repeated: bool,
    /// What it holds.
    pub kind: Kind,
}

/// A message.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

/// What a peer can ask.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// Where.
    pub path: &'static str,
    /// The name of the message.
    pub request: &'static str,
    /// Whether there may be several.
    pub stream: bool,
}

/// How long a field may be.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// The message.
    pub message: &'static str,
    /// The field.
    pub field: &'static str,
    /// Most items of a list; 1 for what is none.
    pub items: usize,
    /// Most bytes of a text, or of each in a list.
    pub bytes: usize,
}

const fn text(message: &'static str, field: &'static str, bytes: usize) -> Bound {
    Bound { message, field, items: 1, bytes }
}

const fn list(message: &'static str, field: &'static str, items: usize) -> Bound {
    Bound { message, field, items, bytes: 0 }
}

const fn texts(message: &'static str, field: &'static str, items: usize, bytes: usize) -> Bound {
    Bound { message, field, items, bytes }
}

/// A name that people give, an id, or a moment such as "20 epochs".
const NAME: usize = 1024;
/// A path.
const PATH: usize = 4096;
/// Statistics, pairs of cells, and the like.
const SEVERAL: usize = 64;
/// A hash or a seal.
const HASH: usize = 32;
/// Leases of one worker, trials of one lease.
const LEASES: usize = 65_536;
/// A piece of a checkpoint, which has a bound of its own where it is taken.
const PIECE: usize = 4 << 20;

/// The table. What is not a text or a list is as long as a number.
pub const BOUNDS: &[Bound] = &[
    text("AxisChoice", "axis", NAME),
    text("AxisChoice", "value", NAME),
    list("CellChoice", "values", MAX_AXES),
    text("CheckpointHead", "hash", HASH),
    text("CheckpointHead", "seal", HASH),
    text("CheckpointHead", "sweep", NAME),
    text("CheckpointHead", "worker", NAME),
    list("CommitResultsRequest", "results", crate::MAX_BATCH),
    text("CommitResultsRequest", "seal", HASH),
    text("CommitResultsRequest", "sweep", NAME),
    text("CommitResultsRequest", "worker", NAME),
    list("CompareRequest", "baseline", MAX_AXES),
    text("CompareRequest", "at", NAME),
    text("CompareRequest", "metric", NAME),
    text("CompareRequest", "sweep", NAME),
    text("CurvesRequest", "metric", NAME),
    text("CurvesRequest", "sweep", NAME),
    texts("CurvesRequest", "by", MAX_AXES, NAME),
    texts("CurvesRequest", "stats", SEVERAL, NAME),
    list("DistanceRequest", "between", SEVERAL),
    text("DistanceRequest", "at", NAME),
    text("DistanceRequest", "sweep", NAME),
    text("EffectsRequest", "at", NAME),
    text("EffectsRequest", "metric", NAME),
    text("EffectsRequest", "sweep", NAME),
    texts("EffectsRequest", "interaction", MAX_AXES, NAME),
    text("ExplainRequest", "sweep", NAME),
    text("ExtendRequest", "seal", HASH),
    text("ExtendRequest", "sweep", NAME),
    text("FetchCheckpointRequest", "sweep", NAME),
    text("FetchCheckpointRequest", "worker", NAME),
    text("FetchRequest", "hash", HASH),
    text("FilePin", "hash", HASH),
    text("FilePin", "path", PATH),
    text("GetSweepRequest", "sweep", NAME),
    text("HasRequest", "hash", HASH),
    list("Heartbeat", "held", LEASES),
    list("Heartbeat", "running", 4096),
    list("Hello", "held", LEASES),
    text("Hello", "build", 128),
    text("Hello", "name", 128),
    text("Hello", "worker", 32),
    texts("Hello", "numerics", SEVERAL, 128),
    text("KeepCheckpointRequest", "chunk", PIECE),
    text("LaunchRequest", "seal", HASH),
    text("NeedsRequest", "metric", NAME),
    text("NeedsRequest", "sweep", NAME),
    text("NewTokenRequest", "note", NAME),
    text("NewTokenRequest", "role", NAME),
    text("PredictionsRequest", "sweep", NAME),
    text("PutRequest", "chunk", crate::transfer::CHUNK),
    text("PutRequest", "hash", HASH),
    // More than 1 KiB of it are not kept.
    text("Release", "why", 65_536),
    text("RemoveRequest", "sweep", NAME),
    text("RevokeTokenRequest", "id", NAME),
    text("RowsRequest", "sweep", NAME),
    // Only a little more than its text may have, so that a file that is too long is told of as such.
    text("SpecSource", "cells", HASH),
    list("SpecSource", "files", MAX_FILES),
    text("SpecSource", "file", PATH),
    text("SpecSource", "text", MAX_TEXT + 65_536),
    texts("SpecSource", "settings", 4096, 1 << 20),
    text("StatusRequest", "sweep", NAME),
    text("SteerRequest", "sweep", NAME),
    text("TableRequest", "at", NAME),
    text("TableRequest", "metric", NAME),
    text("TableRequest", "sweep", NAME),
    texts("TableRequest", "by", MAX_AXES, NAME),
    texts("TableRequest", "stats", SEVERAL, NAME),
    list("TrialResult", "curve_steps", MAX_CURVE),
    list("TrialResult", "curve_values", 400_000),
    list("TrialResult", "metrics", MAX_METRICS),
    list("TrialResult", "prediction_steps", MAX_PREDICTIONS as usize),
    text("TrialResult", "cause", MAX_CAUSE),
    text("TrialResult", "digest", HASH),
    text("TrialResult", "isa", MAX_ISA),
    text("TrialResult", "predictions", MAX_PREDICTIONS as usize),
    text("TrialResult", "weights", HASH),
    text("TrialsRequest", "sweep", NAME),
    text("VarianceRequest", "at", NAME),
    text("VarianceRequest", "metric", NAME),
    text("VarianceRequest", "sweep", NAME),
    text("WatchRequest", "sweep", NAME),
    list("Yielded", "cells", LEASES),
    list("Yielded", "repeats", LEASES),
];

/// The bounds of each of [`MESSAGES`], field by field.
fn bounds() -> &'static [Vec<Option<&'static Bound>>] {
    static ALL: OnceLock<Vec<Vec<Option<&'static Bound>>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let table: HashMap<(&str, &str), &Bound> = BOUNDS.iter().map(|b| ((b.message, b.field), b)).collect();
        let of = |shape: &Shape| shape.fields.iter().map(|f| table.get(&(shape.name, f.name)).copied()).collect();
        MESSAGES.iter().map(of).collect()
    })
}

/// Most fields of a message.
const FIELDS: usize = 64;
/// How deep messages lie in one another, at most.
const DEPTH: usize = 16;

/// Looks at an encoded message. One that breaks off is for the decoder to tell of: it reads as far as this does.
///
/// # Errors
/// A field is larger than it may be, or such as nobody writes.
pub fn check(message: &str, bytes: &[u8]) -> Result<(), Status> {
    static PLACES: OnceLock<HashMap<&'static str, usize>> = OnceLock::new();
    let places = PLACES.get_or_init(|| MESSAGES.iter().enumerate().map(|(at, shape)| (shape.name, at)).collect());
    places.get(message).map_or(Ok(()), |at| check_shape(*at, bytes, DEPTH).map(|_| ()))
}

/// Whether it could be read to its end.
fn check_shape(at: usize, mut bytes: &[u8], depth: usize) -> Result<bool, Status> {
    let (shape, bounds) = (&MESSAGES[at], &bounds()[at]);
    let mut counts = [0_usize; FIELDS];
    while !bytes.is_empty() {
        let Some(tag) = varint(&mut bytes) else { return Ok(false) };
        let place = shape.fields.iter().position(|field| u64::from(field.number) == tag >> 3);
        let value = match tag & 7 {
            0 => varint(&mut bytes).map(|_| &[][..]),
            1 => split(&mut bytes, 8),
            2 => varint(&mut bytes).and_then(|len| split(&mut bytes, usize::try_from(len).ok()?)),
            // The decoder would skip it, and read what is behind it.
            3 | 4 => {
                return Err(Status::invalid_argument(format!(
                    "the message {} has a group, which none has",
                    shape.name
                )));
            }
            5 => split(&mut bytes, 4),
            _ => None,
        };
        let Some(value) = value else { return Ok(false) };
        let Some(place) = place else { continue };
        let field = &shape.fields[place];
        let items = if tag & 7 == 2 { items(field, value) } else { 1 };
        if let Some(bound) = bounds[place] {
            counts[place] += items;
            if field.kind == Kind::Text && value.len() > bound.bytes {
                return Err(too_large(bound, &format!("has {} bytes; at most {} are taken", value.len(), bound.bytes)));
            }
            if field.repeated && counts[place] > bound.items {
                return Err(too_large(bound, &format!("has more than {} entries, which are the most", bound.items)));
            }
        }
        if let Kind::Message(inner) = field.kind {
            counts[place] += usize::from(!field.repeated);
            // The decoder would join the two.
            if !field.repeated && counts[place] > 1 {
                return Err(refused(shape.name, field.name, "comes more than once"));
            }
            // The decoder would read on beyond its end before it tells.
            if depth == 0 || !check_shape(inner, value, depth - 1)? {
                return Err(refused(shape.name, field.name, "cannot be read to its end"));
            }
        }
    }
    Ok(true)
}

/// Numbers may come many at a time.
fn items(field: &Field, value: &[u8]) -> usize {
    match field.kind {
        Kind::Number(0) => value.iter().filter(|byte| **byte < 0x80).count(),
        Kind::Number(width) => value.len() / width,
        _ => 1,
    }
}

fn too_large(bound: &Bound, what: &str) -> Status {
    refused(bound.message, bound.field, what)
}

fn refused(message: &str, field: &str, why: &str) -> Status {
    Status::invalid_argument(format!("the field {field} of {message} {why}"))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
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

fn split<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

/// How messages travel: as prost has them, and what comes is looked at first.
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

/// Decodes what is within its bounds.
#[derive(Debug)]
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Name + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // All of a message lies in one piece.
        if from.chunk().len() == from.remaining() {
            check(U::NAME, from.chunk())?;
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

    use super::*;
    use crate::v1;

    /// Messages that a peer can send to a coordinator, with all that lies in them.
    fn requests() -> BTreeSet<usize> {
        let at = |name: &str| MESSAGES.iter().position(|shape| shape.name == name).expect("a message");
        let mut waiting: Vec<usize> = METHODS.iter().map(|method| at(method.request)).collect();
        let mut found = BTreeSet::new();
        while let Some(shape) = waiting.pop() {
            if found.insert(shape) {
                let inner = |field: &Field| if let Kind::Message(at) = field.kind { Some(at) } else { None };
                waiting.extend(MESSAGES[shape].fields.iter().filter_map(inner));
            }
        }
        found
    }

    #[test]
    fn every_text_and_every_list_of_a_request_has_a_bound() {
        assert!(MESSAGES.iter().all(|shape| shape.fields.len() <= FIELDS));
        let mut wanted = BTreeSet::new();
        for shape in requests().into_iter().map(|at| &MESSAGES[at]) {
            for field in shape.fields.iter().filter(|field| field.repeated || field.kind == Kind::Text) {
                wanted.insert((shape.name, field.name));
            }
        }
        let bounded: BTreeSet<(&str, &str)> = BOUNDS.iter().map(|bound| (bound.message, bound.field)).collect();
        assert_eq!(wanted.difference(&bounded).collect::<Vec<_>>(), Vec::<&(&str, &str)>::new(), "without a bound");
        assert_eq!(bounded.difference(&wanted).collect::<Vec<_>>(), Vec::<&(&str, &str)>::new(), "of no request");
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
            let checked = check("SessionRequest", &v1::SessionRequest { message }.encode_to_vec());
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
        let yielded = |n: usize| v1::Yielded { cells: vec![1 << 40; n], repeats: vec![3; 7], fence: None };
        assert!(check("Yielded", &yielded(65_536).encode_to_vec()).is_ok());
        assert!(check("Yielded", &yielded(65_537).encode_to_vec()).is_err());
        // Not packed is as many.
        let apart = |n: usize| check("Yielded", &[16_u8, 1].repeat(n));
        assert!(apart(65_536).is_ok() && apart(65_537).is_err());
        // What is no message is told of by whoever decodes it.
        for broken in [&[0xff_u8; 20][..], &[10, 200]] {
            assert!(check("Hello", broken).is_ok());
        }
    }

    #[test]
    fn nothing_comes_in_beside_the_bounds() {
        let why = |message: &str, bytes: &[u8]| {
            check(message, bytes).map_err(|status| status.message().to_owned()).err().unwrap_or_default()
        };
        let hello = |held: usize| {
            let hello = v1::Hello { held: vec![v1::Fence::default(); held], ..v1::Hello::default() };
            v1::SessionRequest { message: Some(v1::session_request::Message::Hello(hello)) }.encode_to_vec()
        };
        assert_eq!(why("SessionRequest", &hello(40_000)), "");
        // Two halves are one message to the decoder, which has too much in all.
        let twice = hello(40_000).repeat(2);
        assert!(v1::SessionRequest::decode(&*twice).is_ok());
        assert_eq!(why("SessionRequest", &twice), "the field hello of SessionRequest comes more than once");
        // So is what stands behind a group of a field that nobody knows; the tags 899 and 900 begin and end one of 112.
        let long = v1::Hello { build: "x".repeat(129), ..v1::Hello::default() }.encode_to_vec();
        let behind = [&[0x83_u8, 7, 0x84, 7][..], &long].concat();
        assert!(v1::Hello::decode(&*behind).is_ok());
        for group in [&behind[..], &[11], &[12], &[0x84, 7]] {
            assert_eq!(why("Hello", group), "the message Hello has a group, which none has");
        }
        // A message of two bytes, the text in which has 130.
        let beyond = [&[10_u8, 2, 0x22, 130, 1][..], &[b'x'; 130]].concat();
        assert_eq!(why("SessionRequest", &beyond), "the field hello of SessionRequest cannot be read to its end");
    }
}
