//! Records and digests of files.

use pipeline_spec::{PartRecord, checkpoint_digest, file_digests};
use proptest::prelude::*;

#[test]
fn digests_are_those_of_the_published_test_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("abc");
    std::fs::write(&path, "abc").unwrap();
    let (length, blake3, sha256) = file_digests(&path).unwrap();
    assert_eq!(length, 3);
    assert_eq!(blake3.as_str(), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
    assert_eq!(sha256.as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

proptest! {
    #[test]
    fn any_flipped_bit_and_any_cut_is_found(
        bytes in proptest::collection::vec(any::<u8>(), 1..4000),
        at in any::<proptest::sample::Index>(),
        bit in 0..8u32,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.bin");
        std::fs::write(&path, &bytes).unwrap();
        let record = PartRecord::measure(folder.path(), "part.bin", 0).unwrap();
        prop_assert!(record.verify(folder.path()).is_ok());
        let mut flipped = bytes.clone();
        let at = at.index(bytes.len());
        flipped[at] ^= 1 << bit;
        std::fs::write(&path, &flipped).unwrap();
        let message = record.verify(folder.path()).unwrap_err().to_string();
        prop_assert!(message.contains("blake3") && message.contains("part.bin"), "{}", message);
        std::fs::write(&path, &bytes[..at]).unwrap();
        let message = record.verify(folder.path()).unwrap_err().to_string();
        prop_assert!(message.contains("length differs"), "{}", message);
    }
}

#[test]
fn a_checkpoint_digest_covers_names_and_contents_and_not_the_card() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("config.json", "{}");
    write("model.safetensors", "weights");
    let first = checkpoint_digest(folder.path()).unwrap();
    write("README.md", "card");
    write("training.json", "{}");
    assert_eq!(checkpoint_digest(folder.path()).unwrap(), first);
    write("model.safetensors", "other");
    assert_ne!(checkpoint_digest(folder.path()).unwrap(), first);
    write("model.safetensors", "weights");
    std::fs::rename(folder.path().join("config.json"), folder.path().join("other.json")).unwrap();
    assert_ne!(checkpoint_digest(folder.path()).unwrap(), first);
}

#[test]
fn a_checkpoint_digest_covers_weights_of_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    for name in ["RN50.pt", "pytorch_model.bin", "vit_b_32.pth", "v1-5.ckpt", "bpe_simple_vocab_16e6.txt.gz"]
    {
        write(name, "weights");
        let first = checkpoint_digest(folder.path()).unwrap();
        write(name, "other");
        assert_ne!(checkpoint_digest(folder.path()).unwrap(), first, "{name}");
    }
}

#[test]
fn an_empty_checkpoint_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let message = checkpoint_digest(folder.path()).unwrap_err().to_string();
    assert!(message.contains("safetensors"), "{message}");
}
