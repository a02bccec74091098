//! Writing zip files and pickles by hand, to test what torch would never write.

/// The entries of a zip file of stored entries, in the order of its directory.
pub fn unzip(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let end = bytes.len() - 22;
    let mut at = u32_at(end + 16);
    let mut entries = Vec::new();
    for _ in 0..u16_at(end + 10) {
        let (size, name_len, header) = (u32_at(at + 24), u16_at(at + 28), u32_at(at + 42));
        let name = String::from_utf8(bytes[at + 46..at + 46 + name_len].to_vec()).unwrap();
        let start = header + 30 + u16_at(header + 26) + u16_at(header + 28);
        if u16_at(at + 10) == 0 {
            entries.push((name, bytes[start..start + size].to_vec()));
        }
        at += 46 + name_len + u16_at(at + 30) + u16_at(at + 32);
    }
    entries
}

/// A zip file of stored entries with right checksums.
pub fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    zip_with(entries, |_| {})
}

/// What the directory says of an entry.
pub struct Claim<'a> {
    pub name: &'a str,
    pub method: u16,
    pub flags: u16,
    pub crc32: u32,
    pub size: u32,
    pub header: u32,
}

/// A zip file whose directory says of each entry what `change` makes of the truth.
pub fn zip_with(entries: &[(String, Vec<u8>)], change: impl Fn(&mut Claim<'_>)) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let (crc32, size, header) = (crc32fast::hash(data), data.len() as u32, out.len() as u32);
        let mut claim = Claim { name, method: 0, flags: 0, crc32, size, header };
        change(&mut claim);
        let head = |record: &mut Vec<u8>| {
            for field in [claim.flags, claim.method, 0, 0] {
                record.extend(field.to_le_bytes());
            }
            for field in [claim.crc32, claim.size, claim.size] {
                record.extend(field.to_le_bytes());
            }
            record.extend((name.len() as u16).to_le_bytes());
            record.extend([0, 0]);
        };
        out.extend(b"PK\x03\x04\x14\x00");
        head(&mut out);
        out.extend(name.bytes());
        out.extend(data);
        directory.extend(b"PK\x01\x02\x14\x00\x14\x00");
        head(&mut directory);
        directory.extend([0; 10]);
        directory.extend(claim.header.to_le_bytes());
        directory.extend(name.bytes());
    }
    let (start, size, count) = (out.len() as u32, directory.len() as u32, entries.len() as u16);
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}

/// A zip file of torch with this pickle and these storages.
pub fn archive(pickle: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut entries = vec![("archive/data.pkl".to_owned(), pickle.to_vec())];
    entries.extend(storages.iter().map(|(name, data)| (format!("archive/data/{name}"), data.clone())));
    zip(&entries)
}

/// A pickled text.
pub fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// A pickled integer of 64 bits.
pub fn integer(number: i64) -> Vec<u8> {
    [&b"\x8a\x08"[..], &number.to_le_bytes()].concat()
}

/// A pickled tuple of integers.
pub fn integers(numbers: &[i64]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|&number| integer(number)).collect();
    [&b"("[..], &numbers, b"t"].concat()
}

/// A tensor as a pickle describes it.
pub struct Described<'a> {
    pub storage: &'a str,
    pub num_elements: i64,
    pub offset: i64,
    pub shape: &'a [i64],
    pub strides: &'a [i64],
}

impl Described<'_> {
    /// The instructions that build it, with f32 elements.
    pub fn pickled(&self) -> Vec<u8> {
        [
            &b"ctorch._utils\n_rebuild_tensor_v2\n(("[..],
            &text("storage"),
            b"ctorch\nFloatStorage\n",
            &text(self.storage),
            &text("cpu"),
            &integer(self.num_elements),
            b"tQ",
            &integer(self.offset),
            &integers(self.shape),
            &integers(self.strides),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
        .concat()
    }
}

/// A pickled dictionary of texts to values that are pickled already.
pub fn dictionary(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [&b"\x80\x02}("[..], &items, b"u."].concat()
}
