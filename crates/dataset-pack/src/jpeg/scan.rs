//! Whether the entropy-coded data of a baseline JPEG file are whole (ITU T.81, annex F), without making pixels of them.
//!
//! What comes after this in a decoder, dequantisation and the inverse transform, cannot fail, so a file that passes can be
//! decoded to the end; it takes a fraction of the time. A file that does not pass may still be one that decoders
//! put up with, so they are asked then.

/// Bits that a table is looked up by at once.
const LOOKUP_BITS: u32 = 10;

/// A Huffman table.
struct Table {
    /// For the next [`LOOKUP_BITS`] bits: length of the code, and its symbol; length 0 if the code is longer.
    lookup: Vec<(u8, u8)>,
    /// For each length, the first code that is longer, as 16 bits from the left.
    limits: [u32; 17],
    /// For each length, what to add to a code of that length to get the position of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From the content of a `DHT` segment after the table's id; gives what follows it.
    fn parse(content: &[u8]) -> Option<(Self, &[u8])> {
        let (counts, rest) = content.split_at_checked(16)?;
        let num_symbols = counts.iter().map(|n| usize::from(*n)).sum();
        let (symbols, rest) = rest.split_at_checked(num_symbols)?;
        let mut table = Self {
            lookup: vec![(0, 0); 1 << LOOKUP_BITS],
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut position) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            table.offsets[length as usize] = position as i32 - code as i32;
            for _ in 0..counts[length as usize - 1] {
                if code >> length != 0 {
                    return None;
                }
                if length <= LOOKUP_BITS {
                    let first = (code << (LOOKUP_BITS - length)) as usize;
                    let entries = table.lookup.get_mut(first..first + (1 << (LOOKUP_BITS - length)))?;
                    entries.fill((length as u8, symbols[position]));
                }
                code += 1;
                position += 1;
            }
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some((table, rest))
    }
}

/// A component of the frame.
#[derive(Clone, Copy)]
struct Component {
    id: u8,
    horizontal: u32,
    vertical: u32,
}

/// What the segments before a scan have set.
#[derive(Default)]
struct State {
    width: u32,
    height: u32,
    components: Vec<Component>,
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart_interval: u32,
}

/// Whether `bytes` hold a baseline image all of whose coefficients are there. `false` means that it is not known.
pub fn is_whole(bytes: &[u8]) -> bool {
    let mut state = State::default();
    let mut seen = Vec::new();
    let mut whole = true;
    super::walk(bytes, |marker, content, after| {
        let good = match marker {
            0xc0 | 0xc1 => state.frame(content).is_some(),
            0xc2..=0xcf if marker != 0xc4 => false,
            0xc4 => state.tables(content).is_some(),
            0xdd => {
                state.restart_interval =
                    content.first_chunk().map_or(0, |n| u32::from(u16::from_be_bytes(*n)));
                true
            }
            super::START_OF_SCAN => state.scan(content, after, &mut seen).is_some(),
            _ => true,
        };
        whole &= good;
        good && marker != super::END_OF_IMAGE
    });
    whole && !seen.is_empty() && seen.len() == state.components.len()
}

impl State {
    fn frame(&mut self, content: &[u8]) -> Option<()> {
        let [8, h1, h0, w1, w0, num_components, rest @ ..] = content else { return None };
        (self.width, self.height) =
            (u16::from_be_bytes([*w1, *w0]).into(), u16::from_be_bytes([*h1, *h0]).into());
        let component = |c: &[u8]| Component {
            id: c[0],
            horizontal: u32::from(c[1] >> 4),
            vertical: u32::from(c[1] & 15),
        };
        self.components = rest.chunks_exact(3).take(usize::from(*num_components)).map(component).collect();
        let good = |c: &Component| (1..=4).contains(&c.horizontal) && (1..=4).contains(&c.vertical);
        let whole = self.components.len() == usize::from(*num_components) && self.components.iter().all(good);
        (whole && self.width > 0 && self.height > 0).then_some(())
    }

    fn tables(&mut self, mut content: &[u8]) -> Option<()> {
        while let [id, rest @ ..] = content {
            let (table, rest) = Table::parse(rest)?;
            let of_class = if id >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *of_class.get_mut(usize::from(id & 15))? = Some(table);
            content = rest;
        }
        Some(())
    }

    /// Decodes one scan; adds the components in it to `seen`.
    fn scan(&self, content: &[u8], data: &[u8], seen: &mut Vec<u8>) -> Option<()> {
        let (num_components, rest) = content.split_first()?;
        let mut blocks: Vec<(&Table, &Table, u32)> = Vec::new();
        let mut alone = None;
        for selector in rest.get(..2 * usize::from(*num_components))?.chunks_exact(2) {
            let component = self.components.iter().find(|c| c.id == selector[0])?;
            if seen.contains(&component.id) {
                return None;
            }
            seen.push(component.id);
            let dc = self.dc.get(usize::from(selector[1] >> 4))?.as_ref()?;
            let ac = self.ac.get(usize::from(selector[1] & 15))?.as_ref()?;
            blocks.push((dc, ac, component.horizontal * component.vertical));
            alone = Some(*component);
        }
        let (across, down) =
            self.components.iter().fold((1, 1), |(h, v), c| (h.max(c.horizontal), v.max(c.vertical)));
        let num_units = match (blocks.as_mut_slice(), alone) {
            // A scan of one component has its blocks alone, without padding to whole units.
            ([(.., number)], Some(only)) => {
                *number = 1;
                let side = |pixels: u32, factor: u32, most: u32| (pixels * factor).div_ceil(most).div_ceil(8);
                side(self.width, only.horizontal, across) * side(self.height, only.vertical, down)
            }
            _ => self.width.div_ceil(8 * across) * self.height.div_ceil(8 * down),
        };
        let mut bits = Bits { data, position: 0, buffer: 0, length: 0 };
        for unit in 0..num_units {
            if unit > 0 && self.restart_interval > 0 && unit % self.restart_interval == 0 {
                bits.restart((unit / self.restart_interval - 1) % 8)?;
            }
            for (dc, ac, number) in &blocks {
                for _ in 0..*number {
                    bits.block(dc, ac)?;
                }
            }
        }
        bits.ended().then_some(())
    }
}

/// Bits of entropy-coded data, without the stuffed zeros.
struct Bits<'a> {
    data: &'a [u8],
    position: usize,
    /// The next bits, from the left.
    buffer: u64,
    /// How many of them are of the data; beyond its end come zeros.
    length: i32,
}

impl Bits<'_> {
    #[inline]
    fn fill(&mut self) {
        while self.length <= 48 {
            let byte = match self.data.get(self.position..) {
                Some([0xff, 0x00, ..]) => {
                    self.position += 2;
                    0xff
                }
                Some([0xff, ..] | []) | None => return,
                Some([byte, ..]) => {
                    self.position += 1;
                    *byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.length);
            self.length += 8;
        }
    }

    #[inline]
    fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.length -= count as i32;
    }

    /// The next symbol of a table.
    #[inline]
    fn symbol(&mut self, table: &Table) -> Option<u8> {
        let (length, symbol) = table.lookup[(self.buffer >> (64 - LOOKUP_BITS)) as usize];
        if length > 0 {
            self.skip(length.into());
            return Some(symbol);
        }
        let next = (self.buffer >> 48) as u32;
        let length = (LOOKUP_BITS as usize + 1..=16).find(|&length| next < table.limits[length])?;
        self.skip(length as u32);
        let position = (next >> (16 - length)) as i32 + table.offsets[length];
        table.symbols.get(usize::try_from(position).ok()?).copied()
    }

    /// Passes over one block of 64 coefficients.
    #[inline]
    fn block(&mut self, dc: &Table, ac: &Table) -> Option<()> {
        self.fill();
        let size = self.symbol(dc)?;
        if size > 11 {
            return None;
        }
        self.skip(size.into());
        let mut index = 1;
        while index < 64 {
            // A code and its bits have at most 16 + 10.
            if self.length < 26 {
                self.fill();
            }
            let symbol = self.symbol(ac)?;
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (run, size) {
                (15, 0) => index += 16,
                (0, 0) => break,
                (_, 0) => return None,
                _ => index += run + 1,
            }
            if size > 10 || index > 64 {
                return None;
            }
            self.skip(size);
        }
        (self.length >= 0).then_some(())
    }

    /// Passes over a restart marker, which must have this number.
    fn restart(&mut self, number: u32) -> Option<()> {
        if !self.ended() || self.data.get(self.position..)?.first_chunk()? != &[0xff, 0xd0 + number as u8] {
            return None;
        }
        self.position += 2;
        (self.buffer, self.length) = (0, 0);
        Some(())
    }

    /// Whether nothing but the padding of the last byte is left before the next marker.
    fn ended(&mut self) -> bool {
        self.fill();
        (0..8).contains(&self.length) && self.data.get(self.position) == Some(&0xff)
    }
}
