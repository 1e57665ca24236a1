//! The file format of backups: a line that names the format, then records, each with its length
//! before it, compressed with zstd. The last record has a hash of all others.

use std::io::{BufReader, Read, Write};

use prost::Message as _;

use crate::v1::backup_record::Kind;
use crate::{MAX_MESSAGE_BYTES, v1};

/// First bytes of a backup. Version 2 added the launcher of a sweep, which programs of version 1
/// would leave out of the hash.
const MAGIC: &[u8] = b"ergodic backup 2\n";
/// First bytes of a backup of version 1.
const OLD_MAGIC: &[u8] = b"ergodic backup 1\n";
/// Maximum bytes of a record: a page of rows, of which the last one may be as long as a message.
pub const MAX_RECORD_BYTES: usize = 4 * MAX_MESSAGE_BYTES;

/// Counts the records of a backup and hashes them.
#[derive(Debug, Default)]
pub struct RecordDigest {
    records: u64,
    hasher: blake3::Hasher,
}

impl RecordDigest {
    /// Counts and hashes one more record.
    pub fn add_record(&mut self, record: &v1::BackupRecord) {
        self.add_encoded(&record.encode_length_delimited_to_vec());
    }

    fn add_encoded(&mut self, encoded: &[u8]) {
        self.records += 1;
        self.hasher.update(encoded);
    }

    /// The last record of the backup, with count and hash.
    pub fn end_record(&self) -> v1::BackupRecord {
        let end = v1::BackupEnd {
            records: self.records,
            hash: self.hasher.finalize().as_bytes().to_vec(),
        };
        v1::BackupRecord {
            kind: Some(Kind::End(end)),
        }
    }
}

/// Writes a backup.
pub struct ArchiveWriter<W: Write> {
    stream: zstd::Encoder<'static, W>,
    digest: RecordDigest,
    has_end: bool,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins a backup in `file`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(mut file: W) -> std::io::Result<Self> {
        file.write_all(MAGIC)?;
        Ok(Self {
            stream: zstd::Encoder::new(file, 3)?,
            digest: RecordDigest::default(),
            has_end: false,
        })
    }

    /// Appends a record.
    ///
    /// # Errors
    /// The record cannot be written, or is an end that does not match the records before it.
    pub fn append(&mut self, record: &v1::BackupRecord) -> std::io::Result<()> {
        if matches!(record.kind, Some(Kind::End(_))) {
            self.has_end = *record == self.digest.end_record();
            if !self.has_end {
                return Err(damaged_error("it was damaged on its way"));
            }
        }

        let encoded = record.encode_length_delimited_to_vec();
        self.digest.add_encoded(&encoded);
        self.stream.write_all(&encoded)
    }

    /// Completes the backup and returns the file.
    ///
    /// # Errors
    /// The file cannot be written, or the last record was no end.
    pub fn finish(self) -> std::io::Result<W> {
        if !self.has_end {
            return Err(damaged_error("it broke off"));
        }
        self.stream.finish()
    }
}

/// Calls `each` with every record of a backup except its end.
///
/// # Errors
/// The file cannot be read or is no complete backup, or `each` failed.
pub fn read_records<E: From<std::io::Error>>(
    mut file: impl Read,
    mut each: impl FnMut(v1::BackupRecord) -> Result<(), E>,
) -> Result<(), E> {
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)
        .map_err(|_| damaged_error("this is no backup"))?;

    if magic != MAGIC && magic != OLD_MAGIC {
        return Err(damaged_error("this is no backup, or one of a newer version").into());
    }

    let mut stream = BufReader::new(zstd::Decoder::new(file).map_err(read_error)?);
    let mut tally = RecordDigest::default();

    loop {
        let encoded = read_encoded_record(&mut stream)?;
        let record = v1::BackupRecord::decode_length_delimited(&encoded[..])
            .map_err(|_| damaged_error("a record is damaged"))?;
        if matches!(record.kind, Some(Kind::End(_))) {
            return if record == tally.end_record() {
                Ok(())
            } else {
                Err(damaged_error("its records do not fit its end").into())
            };
        }

        tally.add_encoded(&encoded);
        each(record)?;
    }
}

/// Reads the next record in encoded form, with its length.
fn read_encoded_record(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut encoded = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(read_error)?;
        encoded.push(byte[0]);

        if byte[0] < 0x80 {
            break;
        }
        if encoded.len() > 5 {
            return Err(damaged_error("a record is damaged"));
        }
    }

    let length = prost::decode_length_delimiter(&encoded[..])
        .map_err(|_| damaged_error("a record is damaged"))?;
    if length > MAX_RECORD_BYTES {
        return Err(damaged_error("a record is damaged"));
    }

    let head = encoded.len();
    encoded.resize(head + length, 0);
    stream
        .read_exact(&mut encoded[head..])
        .map_err(read_error)?;

    Ok(encoded)
}

fn read_error(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => damaged_error("it breaks off"),
        _ => damaged_error(&format!("it is damaged: {error}")),
    }
}

fn damaged_error(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use crate::archive::*;

    fn records() -> Vec<v1::BackupRecord> {
        let piece = |n: u8| v1::BackupFile {
            hash: vec![n; 32],
            chunk: vec![n; 1000 * usize::from(n)],
        };
        (1..4)
            .map(|n| v1::BackupRecord {
                kind: Some(Kind::File(piece(n))),
            })
            .collect()
    }

    fn archive() -> Vec<u8> {
        let mut archive = ArchiveWriter::create(Vec::new()).expect("memory can be written");
        let mut tally = RecordDigest::default();
        for record in records() {
            tally.add_record(&record);
            archive.append(&record).expect("appended");
        }
        archive.append(&tally.end_record()).expect("appended");
        archive.finish().expect("whole")
    }

    fn read_all(bytes: &[u8]) -> std::io::Result<Vec<v1::BackupRecord>> {
        let mut all = Vec::new();
        read_records(bytes, |record| {
            all.push(record);
            Ok::<(), std::io::Error>(())
        })?;
        Ok(all)
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(read_all(&archive()).expect("whole"), records());
    }

    #[test]
    fn backups_of_version_1_are_read_and_those_of_later_versions_are_not() {
        let of_version = |version: u8| {
            let mut bytes = archive();
            let at = bytes.iter().position(|byte| *byte == b'\n');
            bytes[at.expect("a line that names the format") - 1] = version;
            bytes
        };

        assert_eq!(of_version(b'2'), archive());
        assert_eq!(read_all(&of_version(b'1')).expect("whole"), records());
        for later in [b'0', b'3', b'9'] {
            let error = read_all(&of_version(later)).expect_err("another version");
            assert!(error.to_string().contains("newer version"), "{error}");
        }
    }

    #[test]
    fn whatever_is_cut_or_changed_is_noticed() {
        let whole = archive();
        for len in 0..whole.len() {
            assert!(read_all(&whole[..len]).is_err(), "cut at {len}");
        }

        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            // Some bits of a compressed stream mean nothing.
            assert!(
                read_all(&changed).map_or(true, |all| all == records()),
                "changed at {at}"
            );
        }
    }

    #[test]
    fn a_backup_without_its_end_is_none() {
        let mut archive = ArchiveWriter::create(Vec::new()).expect("memory can be written");
        archive.append(&records()[0]).expect("appended");
        let wrong = RecordDigest::default().end_record();
        assert!(archive.append(&wrong).is_err());
        assert!(archive.finish().is_err());
    }
}
