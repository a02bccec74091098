//! Archives that must be refused, and one that must not.

use std::io::Write;
use std::path::{Path, PathBuf};

use dataset_pack::Error;
use dataset_pack::container::{Limits, read_entries};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

const SMALL: Limits = Limits { entry_bytes: 1000, total_bytes: 100_000, entries: 10 };

/// An entry whose name is written as it is, which `tar::Builder` would refuse.
fn raw(name: &str, kind: EntryType, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    if kind.is_symlink() {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn write(folder: &Path, entries: &[Vec<u8>]) -> PathBuf {
    let path = folder.join("a.tgz");
    let mut gz = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::fast());
    for entry in entries {
        gz.write_all(entry).unwrap();
    }
    gz.write_all(&[0; 1024]).unwrap();
    gz.finish().unwrap();
    path
}

fn refusal(entries: &[Vec<u8>], limits: Limits) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), entries);
    let error = read_entries(&path, &["package/a.json"], limits).unwrap_err();
    assert!(matches!(error, Error::Archive { .. }), "{error}");
    assert!(error.to_string().contains("a.tgz"), "{error}");
    error.to_string()
}

#[test]
fn wanted_entries_are_read_and_others_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tgz");
    let mut tar = Builder::new(GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::fast()));
    for (name, data) in [("package/b.json", "no"), ("package/a.json", "yes")] {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, data.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    let files = read_entries(&path, &["package/a.json"], SMALL).unwrap();
    assert_eq!(files["package/a.json"], b"yes");
    assert_eq!(files.len(), 1);
}

#[test]
fn paths_that_leave_the_archive_are_refused() {
    for name in ["/etc/passwd", "../a.json", "package/../../a.json", "package\\a.json"] {
        let message = refusal(&[raw(name, EntryType::Regular, b"x")], SMALL);
        assert!(message.contains("without `..`") && message.contains(name), "{message}");
    }
}

#[test]
fn links_and_devices_are_refused() {
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo] {
        let message = refusal(&[raw("package/a.json", kind, b"")], SMALL);
        assert!(message.contains("expected a plain file or folder"), "{message}");
    }
}

#[test]
fn huge_entries_and_decompression_bombs_are_refused() {
    let message = refusal(&[raw("package/a.json", EntryType::Regular, &[0; 1001])], SMALL);
    assert!(message.contains("1001 bytes, expected at most 1000"), "{message}");
    let limits = Limits { entry_bytes: u64::MAX, ..SMALL };
    let message = refusal(&[raw("package/b.json", EntryType::Regular, &vec![0; 1 << 20])], limits);
    assert!(message.contains("more bytes than allowed"), "{message}");
    let many: Vec<_> = (0..11).map(|i| raw(&format!("package/{i}"), EntryType::Regular, b"")).collect();
    assert!(refusal(&many, SMALL).contains("more than 10 entries"));
}

#[test]
fn a_lying_size_and_a_truncated_archive_are_refused() {
    let mut lying = raw("package/a.json", EntryType::Regular, b"x");
    lying[124..136].copy_from_slice(b"77777777777\0");
    refusal(&[lying], Limits::ICON_SET);
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &[raw("package/a.json", EntryType::Regular, &[7; 900])]);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(read_entries(&path, &["package/a.json"], SMALL).is_err());
    std::fs::write(&path, b"not gzip").unwrap();
    assert!(
        read_entries(&path, &["package/a.json"], SMALL)
            .unwrap_err()
            .to_string()
            .contains("not a readable `.tgz`")
    );
}

#[test]
fn a_missing_entry_is_named() {
    let message = refusal(&[raw("package/b.json", EntryType::Regular, b"{}")], SMALL);
    assert!(message.contains("`package/a.json`: it is missing"), "{message}");
}
