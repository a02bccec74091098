//! Archives of images: what is listed and read, and what is refused by name.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use dataset_pack::container::Container;
use tar::EntryType;

use crate::benchmark_small::{gzip, tar, zip};

fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A tar file of one entry with a raw name, which a tar writer would refuse.
fn raw_tar(name: &[u8], kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    if matches!(kind, EntryType::Symlink | EntryType::Link) {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

#[test]
fn hidden_files_and_folders_are_passed_over_and_positions_stay() {
    let files: Vec<(String, Vec<u8>)> = ["a/1.png", "a/._1.png", "__MACOSX/a/1.png", "b/2.png"]
        .iter()
        .enumerate()
        .map(|(i, name)| ((*name).to_owned(), vec![i as u8; 10]))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("x.tar", tar(&files)), ("x.tgz", gzip(&tar(&files))), ("x.zip", zip(&files))] {
        let container = Container::at(&put(folder.path(), name, &bytes)).unwrap();
        assert_eq!(container.names().unwrap(), ["a/1.png", "", "", "b/2.png"], "{name}");
        let mut read = Vec::new();
        container.read(&[0, 3], |position, bytes| read.push((position, bytes))).unwrap();
        assert_eq!(read, [(0, vec![0; 10]), (3, vec![3; 10])], "{name}");
        let message = container.read(&[9], |_, _| {}).unwrap_err().to_string();
        assert!(message.contains("fewer entries"), "{message}");
    }
    assert!(Container::at(Path::new("x.rar")).is_none());
}

#[test]
fn paths_that_leave_and_links_and_devices_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |name: &str, bytes: &[u8]| {
        let error = Container::at(&put(folder.path(), name, bytes)).unwrap().names().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        error.to_string()
    };
    for name in ["/etc/passwd", "../a.png", "a/../../b.png", "a\\b.png"] {
        for file in ["x.tar", "x.tgz"] {
            let bytes = raw_tar(name.as_bytes(), EntryType::Regular, b"x");
            let bytes = if file == "x.tgz" { gzip(&bytes) } else { bytes };
            let message = refuse(file, &bytes);
            assert!(message.contains("without `..`") && message.contains(name), "{message}");
        }
        let message = refuse("x.zip", &zip(&[(name.to_owned(), vec![1])]));
        assert!(message.contains("without `..`"), "{message}");
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let message = refuse("x.tar", &raw_tar(b"a.png", kind, b""));
        assert!(message.contains("expected a plain file or folder"), "{message}");
    }
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer.add_symlink("a.png", "/etc/passwd", zip::write::FileOptions::default()).unwrap();
    let message = refuse("x.zip", &writer.finish().unwrap().into_inner());
    assert!(message.contains("found a link"), "{message}");
    assert!(refuse("x.tar", &raw_tar(b"a\xff.png", EntryType::Regular, b"x")).contains("not UTF-8"));
    let twice = [("a.png".to_owned(), vec![1]), ("a.png".to_owned(), vec![2])];
    assert!(refuse("x.tar", &tar(&twice)).contains("stands in the archive twice"));
}

#[test]
fn bombs_and_damaged_archives_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let zeros = vec![0_u8; 65 << 20];
    for (name, bytes) in [
        ("x.tar", tar(&[("a.png".to_owned(), zeros.clone())])),
        ("x.zip", zip(&[("a.png".to_owned(), zeros.clone())])),
    ] {
        let container = Container::at(&put(folder.path(), name, &bytes)).unwrap();
        let message = container.read(&[0], |_, _| {}).unwrap_err().to_string();
        assert!(message.contains("more than 67108864 bytes"), "{message}");
    }
    // Gzip that grows a thousandfold: 120 MiB of zeros in one entry.
    let mut head = raw_tar(b"a.png", EntryType::Regular, b"")[..512].to_vec();
    let mut header = tar::Header::from_byte_slice(&head).clone();
    header.set_size(120 << 20);
    header.set_cksum();
    head.copy_from_slice(header.as_bytes());
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&head).unwrap();
    for _ in 0..120 {
        gz.write_all(&[0; 1 << 20]).unwrap();
    }
    let path = put(folder.path(), "x.tgz", &gz.finish().unwrap());
    let message = Container::at(&path).unwrap().names().unwrap_err().to_string();
    assert!(message.contains("more bytes than allowed"), "{message}");
    let good = gzip(&tar(&[("a.png".to_owned(), (0..50_000_u32).map(|i| (i * i) as u8).collect())]));
    for length in [0, 1, 20, good.len() / 2] {
        let container = Container::at(&put(folder.path(), "x.tgz", &good[..length])).unwrap();
        assert!(container.names().is_err() || container.read(&[0], |_, _| {}).is_err(), "{length}");
    }
    assert!(Container::at(&put(folder.path(), "x.zip", b"PK\x03\x04 no")).unwrap().names().is_err());
    assert!(Container::at(&put(folder.path(), "x.parquet", b"PAR1 no")).unwrap().names().is_err());
}
