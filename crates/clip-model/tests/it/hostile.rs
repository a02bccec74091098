//! Damaged and hostile weight files: a typed error that names file and cause, nothing executed, no panic, bounded memory.

use std::fs;
use std::path::Path;

use clip_model::{ArchiveError, Checkpoint, Clip, Error, PickleError, SaveDtype, key_list, save_safetensors};

use crate::checkpoints::chain;
use crate::golden::{device, path};
use crate::torch_files::{Described, archive, dictionary, integer, text, unzip, zip, zip_with};

/// Peak memory that refusing hostile files may take beyond what the process had, tests that run beside included.
const MAX_GROWTH: u64 = 256 << 20;

type Keys = Result<Vec<(String, Vec<usize>, String)>, Error>;

/// Writes a file and lists its tensors.
fn keys(bytes: &[u8]) -> Keys {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hostile.pt");
    fs::write(&file, bytes).unwrap();
    key_list(&file)
}

fn pickle_error(result: Keys) -> PickleError {
    let error = result.unwrap_err();
    assert!(error.to_string().contains("hostile.pt"), "{error}");
    match error {
        Error::Pickle { source, .. } => source,
        other => panic!("{}", chain(&other)),
    }
}

fn archive_error(result: Keys) -> ArchiveError {
    match result.unwrap_err() {
        Error::Archive { source, .. } => source,
        other => panic!("{}", chain(&other)),
    }
}

/// The most memory that this process ever held, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes << 10)
}

/// Pseudo-random numbers, the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

#[test]
fn malicious_call_is_refused_by_name_and_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let witness = dir.path().join("was-here");
    let command = text(&format!("touch {}", witness.display()));
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("torch", "FloatStorage.from_file"),
        ("__torch__evil", "run"),
    ] {
        let by_line = format!("c{module}\n{name}\n").into_bytes();
        let by_stack = [&text(module)[..], &text(name), b"\x93"].concat();
        for import in [by_line, by_stack] {
            let call = [&b"\x80\x04"[..], &import, &command, b"\x85R."].concat();
            let value = [&import[..], &command, b"\x85R"].concat();
            for pickle in [call, dictionary(&[("visual.proj", value)])] {
                let error = pickle_error(keys(&archive(&pickle, &[])));
                assert_eq!(error, PickleError::Global { name: format!("{module}.{name}") });
            }
        }
    }
    // The instructions that import and call at once.
    for (instruction, opcode) in [(&b"(Vtouch x\nios\nsystem\n."[..], b'V'), (b"(cos\nsystem\no.", b'c')] {
        match pickle_error(keys(&archive(instruction, &[]))) {
            PickleError::Opcode { opcode: found, .. } => assert_eq!(found, opcode),
            PickleError::Global { name } => assert_eq!((opcode, name.as_str()), (b'c', "os.system")),
            other => panic!("{other}"),
        }
    }
    assert!(!witness.exists());
}

#[test]
fn only_functions_for_tensors_are_called() {
    let call =
        |function: &[u8]| pickle_error(keys(&archive(&[function, &text("x"), b"\x85R."].concat(), &[])));
    assert!(matches!(call(b"ctorch\nFloatStorage\n"), PickleError::Call { found: "a storage class", .. }));
    assert!(matches!(
        call(b"c__torch__.Evil\nrun\n"),
        PickleError::Call { found: "a TorchScript class", .. }
    ));
    assert!(matches!(call(&text("eval")), PickleError::Call { found: "a text", .. }));
    let object = [&b"ccollections\nOrderedDict\n"[..], b")\x81."].concat();
    assert!(matches!(pickle_error(keys(&archive(&object, &[]))), PickleError::Call { .. }));
}

/// The tensor of a file with one storage of ten f32 elements.
fn tensor(described: &Described<'_>) -> Keys {
    keys(&archive(&dictionary(&[("visual.proj", described.pickled())]), &[("0", vec![0; 40])]))
}

#[test]
fn tensor_beyond_its_storage_is_refused() {
    let good = || Described { storage: "0", num_elements: 10, offset: 1, shape: &[3, 3], strides: &[1, 3] };
    assert_eq!(tensor(&good()).unwrap(), [("visual.proj".to_owned(), vec![3, 3], "F32".to_owned())]);
    let huge = i64::MAX;
    let cases: [(&str, Described<'_>); 11] = [
        ("storage", Described { num_elements: 11, ..good() }),
        ("storage", Described { num_elements: huge, ..good() }),
        ("offset", Described { offset: -1, ..good() }),
        ("extent", Described { offset: 2, ..good() }),
        ("extent", Described { offset: huge, ..good() }),
        ("strides", Described { strides: &[-1, 3], ..good() }),
        ("extent", Described { strides: &[huge, huge], ..good() }),
        ("shape", Described { shape: &[-3, 3], ..good() }),
        ("shape", Described { shape: &[huge, huge], ..good() }),
        ("shape", Described { shape: &[1 << 40, 1], strides: &[0, 0], ..good() }),
        ("shape", Described { offset: 0, shape: &[11], strides: &[1], ..good() }),
    ];
    for (expected, described) in cases {
        let error = tensor(&described).unwrap_err();
        let Error::Tensor { key, field, .. } = &error else { panic!("{}", chain(&error)) };
        assert_eq!((key.as_str(), *field), ("visual.proj", expected), "{error}");
        assert!(error.to_string().contains("hostile.pt"), "{error}");
    }
    let error = pickle_error(tensor(&Described { num_elements: -1, ..good() }));
    assert!(matches!(error, PickleError::Value { .. }), "{error}");
    let error = pickle_error(tensor(&Described { strides: &[1], ..good() }));
    assert!(matches!(error, PickleError::Value { .. }), "{error}");
    let error = archive_error(tensor(&Described { storage: "../../etc/passwd", ..good() }));
    assert!(matches!(error, ArchiveError::Missing { .. }), "{error}");
}

#[test]
fn tensors_that_share_one_storage_cannot_outgrow_the_file() {
    let whole = || {
        Described { storage: "0", num_elements: 40_000, offset: 0, shape: &[40_000], strides: &[1] }.pickled()
    };
    let names: Vec<String> =
        (0..900).map(|layer| format!("transformer.resblocks.{layer}.mlp.c_fc.weight")).collect();
    let items: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), whole())).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shared.bin");
    fs::write(&file, archive(&dictionary(&items), &[("0", vec![0; 160_000])])).unwrap();
    let error = Checkpoint::open(&file, None).err().unwrap();
    assert!(matches!(error, Error::OverlappingTensors { .. }), "{}", chain(&error));
}

#[test]
fn pickle_of_something_else_is_refused() {
    for (pickle, found) in [
        (&b"\x80\x02]."[..], "a list"),
        (b"N.", "nothing"),
        (&dictionary(&[("a", b"K\x01".to_vec())]), "an integer"),
        (&dictionary(&[("a", dictionary(&[])[2..3].to_vec())]), "a dictionary"),
    ] {
        let error = pickle_error(keys(&archive(pickle, &[])));
        assert!(matches!(&error, PickleError::Content { found: named, .. } if *named == found), "{error}");
    }
    let one =
        || Described { storage: "0", num_elements: 10, offset: 0, shape: &[10], strides: &[1] }.pickled();
    let twice = dictionary(&[("a", one()), ("a", one())]);
    let error = pickle_error(keys(&archive(&twice, &[("0", vec![0; 40])])));
    assert!(matches!(&error, PickleError::Content { name, .. } if name == "a"), "{error}");
}

#[test]
fn endless_pickles_stop() {
    let before = peak_memory();
    // Every module holds the next one twice: 2^40 attributes to walk, none of them a tensor.
    let mut modules = b"\x80\x02".to_vec();
    for level in 0..40 {
        modules.extend(b"c__torch__.M\nM\n)\x81}(");
        for name in ["a", "b"] {
            modules.extend(text(name));
            modules.extend(if level == 0 { b"N\x85".to_vec() } else { vec![b'h', level - 1] });
        }
        modules.extend([b'u', b'b', b'q', level]);
    }
    modules.push(b'.');
    let error = pickle_error(keys(&archive(&modules, &[])));
    assert!(matches!(error, PickleError::TooLarge { .. }), "{error}");
    // A module that holds itself.
    let itself = [&b"c__torch__.M\nM\n)\x81q\x00}"[..], &text("a"), b"h\x00sb."].concat();
    assert!(matches!(pickle_error(keys(&archive(&itself, &[]))), PickleError::TooLarge { .. }));
    // Many instructions, many marks, a long memo, a text that claims four gigabytes.
    for (start, repeated) in
        [(&b""[..], &b"}"[..]), (b"", b"("), (b"}", b"\x94"), (b"]", b"h\x00"), (b"", b")\x85")]
    {
        let pickle = [start, &repeated.repeat(12 << 20)[..12 << 20], b"."].concat();
        let error = pickle_error(keys(&archive(&pickle, &[])));
        assert!(matches!(error, PickleError::TooLarge { .. } | PickleError::Value { .. }), "{error}");
    }
    let error = pickle_error(keys(&archive(b"X\xff\xff\xff\xff.", &[])));
    assert!(matches!(error, PickleError::Truncated { .. }), "{error}");
    let error = archive_error(keys(&archive(&vec![b'N'; 17 << 20], &[])));
    assert!(matches!(error, ArchiveError::TooLarge { what: "bytes of pickle", .. }), "{error}");
    let growth = peak_memory() - before;
    eprintln!("peak memory of endless pickles: {} MB", growth >> 20);
    assert!(growth < MAX_GROWTH, "{growth}");
}

#[test]
fn zip_bombs_and_lying_directories_are_refused() {
    let before = peak_memory();
    let one = Described { storage: "0", num_elements: 10, offset: 0, shape: &[10], strides: &[1] };
    let pickle = dictionary(&[("a", one.pickled())]);
    let entries = vec![
        ("archive/data.pkl".to_owned(), pickle),
        ("archive/data/0".to_owned(), vec![0; 40]),
        ("archive/code/evil.py".to_owned(), b"import os".to_vec()),
    ];
    assert_eq!(keys(&zip(&entries)).unwrap().len(), 1);
    let claim = |entry: &'static str, change: fn(&mut crate::torch_files::Claim<'_>)| {
        keys(&zip_with(&entries, move |claim| {
            if claim.name.ends_with(entry) {
                change(claim);
            }
        }))
    };
    for entry in ["data.pkl", "data/0"] {
        let error = archive_error(claim(entry, |claim| claim.method = 8));
        assert!(matches!(error, ArchiveError::Compressed { method: 8, .. }), "{error}");
        let error = archive_error(claim(entry, |claim| claim.flags = 1));
        assert!(matches!(error, ArchiveError::Encrypted { .. }), "{error}");
        let error = archive_error(claim(entry, |claim| claim.size = u32::MAX - 1));
        assert!(matches!(error, ArchiveError::Displaced { .. }), "{error}");
        let error = archive_error(claim(entry, |claim| claim.header += 1));
        assert!(matches!(error, ArchiveError::Displaced { .. }), "{error}");
        let error = archive_error(claim(entry, |claim| claim.size = u32::MAX));
        assert!(matches!(error, ArchiveError::Directory { .. }), "{error}");
    }
    let error = archive_error(claim("data.pkl", |claim| claim.crc32 ^= 1));
    assert!(matches!(error, ArchiveError::Checksum { .. }), "{error}");
    // Code beside the weights is never looked at, so nothing in it matters.
    assert_eq!(claim("evil.py", |claim| (claim.method, claim.size) = (8, u32::MAX - 1)).unwrap().len(), 1);
    let doubled = [&entries[..], &entries[1..2]].concat();
    assert!(matches!(archive_error(keys(&zip(&doubled))), ArchiveError::Duplicate { .. }));
    let big_endian = [&entries[..], &[("archive/byteorder".to_owned(), b"big".to_vec())]].concat();
    assert!(matches!(archive_error(keys(&zip(&big_endian))), ArchiveError::ByteOrder { .. }));
    assert!(matches!(archive_error(keys(&zip(&entries[1..]))), ArchiveError::Missing { .. }));
    // A zip64 record that claims entries and a directory without end.
    let plain = zip(&entries);
    let (head, end) = plain.split_at(plain.len() - 22);
    for (count, size) in [(u64::MAX, 100), (3, u64::MAX), (3, 1 << 40), (65_000, 1 << 20)] {
        let mut record = b"PK\x06\x06".to_vec();
        record.extend([0; 28]);
        record.extend([count.to_le_bytes(), size.to_le_bytes(), 0_u64.to_le_bytes()].concat());
        let locator = [&b"PK\x06\x07\0\0\0\0"[..], &(head.len() as u64).to_le_bytes(), &[0; 4]].concat();
        let error = archive_error(keys(&[head, &record, &locator, end].concat()));
        assert!(matches!(error, ArchiveError::TooLarge { .. } | ArchiveError::Directory { .. }), "{error}");
    }
    let growth = peak_memory() - before;
    eprintln!("peak memory of zip bombs: {} MB", growth >> 20);
    assert!(growth < MAX_GROWTH, "{growth}");
}

#[test]
fn legacy_file_with_lying_sizes_is_refused() {
    let magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    let described =
        |num_elements| Described { storage: "0", num_elements, offset: 0, shape: &[10], strides: &[1] };
    let file = |num_elements: i64, len: usize| {
        let state = dictionary(&[("a", described(num_elements).pickled())]);
        let names = [&b"\x80\x02]"[..], &text("0"), b"a."].concat();
        [&magic[..], &integer(1001), b".", b"}.", &state, &names, &10_u64.to_le_bytes(), &vec![0; len]]
            .concat()
    };
    assert_eq!(keys(&file(10, 40)).unwrap().len(), 1);
    for (num_elements, len) in [(11, 40), (i64::MAX, 40), (1 << 60, 40), (10, 39)] {
        let error = keys(&file(num_elements, len)).unwrap_err();
        assert!(matches!(&error, Error::Tensor { field: "storage", .. }), "{}", chain(&error));
    }
}

/// Golden files of every format with the folder that holds their configuration.
const FILES: [&str; 6] = [
    "checkpoints/vit/openai.pt",
    "checkpoints/vit/open_clip_pytorch_model.bin",
    "checkpoints/vit/epoch_1.pt",
    "checkpoints/vit/legacy.pt",
    "checkpoints/vit/transformers/pytorch_model.bin",
    "checkpoints/resnet/open_clip_model.safetensors",
];

/// A folder in which a file can be replaced, its configuration beside.
struct Bench {
    dir: tempfile::TempDir,
    name: String,
    bytes: Vec<u8>,
}

impl Bench {
    fn new(file: &str) -> Self {
        let (dir, from) = (tempfile::tempdir().unwrap(), path(file));
        for name in ["config.json", "open_clip_config.json"] {
            let config = from.with_file_name(name);
            if config.is_file() {
                fs::copy(config, dir.path().join(name)).unwrap();
            }
        }
        let name = from.file_name().unwrap().to_str().unwrap().to_owned();
        Bench { dir, name, bytes: fs::read(from).unwrap() }
    }

    fn load(&self, bytes: &[u8]) -> Result<Clip, Error> {
        let file = self.dir.path().join(&self.name);
        fs::write(&file, bytes).unwrap();
        Checkpoint::open(&file, None)?.load(&device())
    }

    /// The model's weights as bytes.
    fn weights(&self, clip: &Clip) -> Vec<u8> {
        let file = self.dir.path().join("saved");
        save_safetensors(clip, &file, SaveDtype::F32, &clip.key_table()).unwrap();
        fs::read(file).unwrap()
    }
}

/// An error of a damaged file names it, or the configuration that a changed key contradicts.
fn assert_names_file(error: &Error, name: &str) {
    let text = error.to_string();
    assert!(text.contains(name) || text.contains("open_clip_config.json"), "{}", chain(error));
}

#[test]
fn truncated_files_are_refused() {
    let before = peak_memory();
    let mut tried = 0;
    for file in FILES {
        let bench = Bench::new(file);
        let len = bench.bytes.len();
        let mut draw = Draw(1);
        let near = (0..40).chain(len - 160..len);
        for at in near.chain((0..200).map(|_| draw.below(len))) {
            let error =
                bench.load(&bench.bytes[..at]).err().unwrap_or_else(|| panic!("{file} cut at {at} loads"));
            assert_names_file(&error, &bench.name);
            tried += 1;
        }
    }
    let growth = peak_memory() - before;
    eprintln!("{tried} truncations refused, peak memory {} MB more", growth >> 20);
    assert!(growth < MAX_GROWTH, "{growth}");
}

#[test]
fn flipped_bits_are_refused_or_change_no_weight() {
    let before = peak_memory();
    let (mut refused, mut harmless) = (0, 0);
    for file in FILES {
        let bench = Bench::new(file);
        let len = bench.bytes.len();
        let whole = bench.weights(&bench.load(&bench.bytes).unwrap());
        let mut draw = Draw(2);
        // Dense where the structure is: both ends, and in between at random.
        let ends = (0..600).step_by(7).chain((len - 600..len).step_by(7));
        let between: Vec<usize> = (0..240).map(|_| draw.below(len)).collect();
        for at in ends.chain(between) {
            let mut flipped = bench.bytes.clone();
            flipped[at] ^= 1 << draw.below(8);
            match bench.load(&flipped) {
                Err(error) => {
                    assert_names_file(&error, &bench.name);
                    refused += 1;
                }
                // Zip files have checksums: a flip that stays unseen lies in code, padding or an unread field. The other
                // formats have none, so a number may differ; names and shapes are those of the model.
                Ok(clip) => {
                    let has_checksums = !file.ends_with("legacy.pt") && !file.ends_with(".safetensors");
                    if has_checksums {
                        assert!(bench.weights(&clip) == whole, "{file} flipped at {at} changes a weight");
                    }
                    harmless += 1;
                }
            }
        }
    }
    let growth = peak_memory() - before;
    eprintln!(
        "{refused} flips refused, {harmless} without effect on names and shapes, peak memory {} MB more",
        growth >> 20
    );
    assert!(growth < MAX_GROWTH, "{growth}");
    assert!(refused > harmless, "{refused} refused, {harmless} not");
}

#[test]
fn mutated_pickles_with_right_checksums_never_panic() {
    let before = peak_memory();
    let (mut refused, mut loaded) = (0, 0);
    for file in FILES.iter().filter(|file| !file.ends_with("legacy.pt") && !file.ends_with(".safetensors")) {
        let bench = Bench::new(file);
        let entries = unzip(&bench.bytes);
        let at = entries.iter().position(|(name, _)| name.ends_with("/data.pkl")).unwrap();
        let mut draw = Draw(3);
        for round in 0..150 {
            let mut changed = entries.clone();
            let pickle = &mut changed[at].1;
            for _ in 0..=round % 3 {
                let place = draw.below(pickle.len());
                match draw.below(3) {
                    0 => pickle[place] = draw.below(256) as u8,
                    1 => drop(pickle.remove(place)),
                    _ => pickle.insert(place, draw.below(256) as u8),
                }
            }
            match bench.load(&zip(&changed)) {
                Err(error) => {
                    assert_names_file(&error, &bench.name);
                    refused += 1;
                }
                Ok(_) => loaded += 1,
            }
        }
    }
    let growth = peak_memory() - before;
    eprintln!(
        "{refused} mutated pickles refused, {loaded} still describe the model, peak memory {} MB more",
        growth >> 20
    );
    assert!(growth < MAX_GROWTH, "{growth}");
    assert!(refused > loaded, "{refused} refused, {loaded} not");
}

#[test]
fn safetensors_header_with_huge_shapes_is_refused() {
    for header in [
        r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
    ] {
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
        let error = keys(&file).unwrap_err();
        assert!(matches!(error, Error::SafeTensors { .. }), "{}", chain(&error));
    }
    let error = keys(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat()).unwrap_err();
    assert!(matches!(error, Error::SafeTensors { .. }), "{}", chain(&error));
    assert!(matches!(key_list(Path::new("no/such/file")).unwrap_err(), Error::Read { .. }));
}
