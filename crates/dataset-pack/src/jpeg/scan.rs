//! Whether the entropy-coded data of a baseline JPEG file are whole (ITU T.81, annex F), without making pixels of them.
//!
//! What comes after this in a decoder, dequantisation and the inverse transform, cannot fail, so a file that passes can be
//! decoded to the end; it takes a fraction of the time. A file that does not pass may still be one that decoders
//! put up with, so they are asked then.

/// Bits that a table is looked up by at once.
const LOOKUP_BITS: u32 = 11;
/// Most bits of a code with its coefficient: 16 and, for a DC coefficient, 11.
const MAX_STEP_BITS: i32 = 27;

/// Position after a block that was cut short by its end code, at least.
const CUT_SHORT: u32 = 256;
/// Position after a code that no baseline file has: neither 64 nor above [`CUT_SHORT`].
const WRONG: u32 = 100;

/// What one code stands for: bits of the code with its coefficient (5 bits from the right), then how far it moves the position
/// in the block. 0 is no entry.
type Step = u16;

/// The step of the first code among the bits that are looked up and, from bit 16, that of the first two together; both are the
/// same where the second is not among them. 0 if the first code is longer.
type Pair = u32;

/// A Huffman table of steps.
struct Table {
    /// For the next [`LOOKUP_BITS`] bits.
    lookup: Box<[Pair; 1 << LOOKUP_BITS]>,
    /// For each length, the first code that is longer, as 16 bits from the left.
    limits: [u32; 17],
    /// For each length, what to add to a code of that length to get its place in `steps`.
    offsets: [i32; 17],
    steps: Vec<Step>,
}

/// The step of the DC coefficient with a code of `length` bits.
fn dc_step(length: u32, symbol: u8) -> Step {
    let (size, advance) = if symbol <= 11 { (symbol.into(), 1) } else { (0, WRONG) };
    ((length + size) | (advance << 5)) as Step
}

/// The step of an AC code of `length` bits: zeros and a coefficient, sixteen zeros, or the end of the block.
fn ac_step(length: u32, symbol: u8) -> Step {
    let (size, advance) = match (u32::from(symbol >> 4), u32::from(symbol & 15)) {
        (15, 0) => (0, 16),
        (0, 0) => (0, CUT_SHORT),
        (run, size @ 1..=10) => (size, run + 1),
        _ => (0, WRONG),
    };
    ((length + size) | (advance << 5)) as Step
}

impl Table {
    /// From the content of a `DHT` segment after the table's id; gives what follows it.
    fn parse(content: &[u8], step: fn(u32, u8) -> Step) -> Option<(Self, &[u8])> {
        let (counts, rest) = content.split_at_checked(16)?;
        let num_symbols = counts.iter().map(|n| usize::from(*n)).sum();
        let (symbols, rest) = rest.split_at_checked(num_symbols)?;
        let mut table = Self {
            lookup: Box::new([0; 1 << LOOKUP_BITS]),
            limits: [0; 17],
            offsets: [0; 17],
            steps: Vec::with_capacity(num_symbols),
        };
        // Where a code begins, its step and its own length.
        let mut firsts = [(0 as Step, 0_u32); 1 << LOOKUP_BITS];
        let mut code = 0_u32;
        for length in 1..=16_u32 {
            table.offsets[length as usize] = table.steps.len() as i32 - code as i32;
            for _ in 0..counts[length as usize - 1] {
                if code >> length != 0 {
                    return None;
                }
                let step = step(length, symbols[table.steps.len()]);
                if length <= LOOKUP_BITS {
                    let first = (code << (LOOKUP_BITS - length)) as usize;
                    firsts.get_mut(first..first + (1 << (LOOKUP_BITS - length)))?.fill((step, length));
                }
                table.steps.push(step);
                code += 1;
            }
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        for (bits, pair) in table.lookup.iter_mut().enumerate() {
            *pair = Self::pair(&firsts, bits);
        }
        Some((table, rest))
    }

    /// What stands for these [`LOOKUP_BITS`] bits.
    fn pair(firsts: &[(Step, u32); 1 << LOOKUP_BITS], bits: usize) -> Pair {
        let (first, _) = firsts[bits];
        let num_bits = u32::from(first & 31);
        // Nothing of this block follows its end or a wrong code.
        let goes_on = first >> 5 <= 16 && num_bits < LOOKUP_BITS;
        let (second, length) =
            if goes_on { firsts[bits << num_bits & ((1 << LOOKUP_BITS) - 1)] } else { (0, 0) };
        let is_whole = second != 0 && num_bits + length <= LOOKUP_BITS;
        // Neither bits nor advance of the sum reach into each other's place.
        let both = if is_whole { first + second } else { first };
        u32::from(first) | u32::from(both) << 16
    }

    /// The step of a code longer than [`LOOKUP_BITS`], of which `next` are the first 16 bits.
    #[cold]
    fn long(&self, next: u32) -> Option<Step> {
        let length = (LOOKUP_BITS as usize + 1..=16).find(|&length| next < self.limits[length])?;
        let place = (next >> (16 - length)) as i32 + self.offsets[length];
        self.steps.get(usize::try_from(place).ok()?).copied()
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
            let (of_class, step) = if id >> 4 == 0 {
                (&mut self.dc, dc_step as fn(_, _) -> _)
            } else {
                (&mut self.ac, ac_step as _)
            };
            let (table, rest) = Table::parse(rest, step)?;
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
    /// Takes in bytes until there are 56 to 63 bits or a marker comes.
    #[inline(always)]
    fn fill(&mut self) {
        // Eight bytes at once where none of them is 0xff: then no zero of their negation is found.
        if let Some(next) = self.data.get(self.position..).and_then(<[u8]>::first_chunk) {
            let next = u64::from_be_bytes(*next);
            let is_plain = (!next).wrapping_sub(0x0101_0101_0101_0101) & next & 0x8080_8080_8080_8080 == 0;
            if is_plain && self.length >= 0 {
                self.buffer |= next >> self.length;
                let num_bytes = (63 - self.length) >> 3;
                self.position += num_bytes as usize;
                self.length += 8 * num_bytes;
                // Bits of a byte that was not taken in whole would be added twice.
                self.buffer &= !(u64::MAX >> self.length);
                return;
            }
        }
        self.fill_by_byte();
    }

    #[cold]
    fn fill_by_byte(&mut self) {
        while self.length < 56 {
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

    /// The steps that the next bits stand for.
    #[inline(always)]
    fn next(&mut self, table: &Table) -> Option<Pair> {
        if self.length < MAX_STEP_BITS {
            self.fill();
        }
        let pair = table.lookup[(self.buffer >> (64 - LOOKUP_BITS)) as usize];
        if pair != 0 {
            return Some(pair);
        }
        let step = u32::from(table.long((self.buffer >> 48) as u32)?);
        Some(step | step << 16)
    }

    /// Passes over the codes of a step with their coefficients; gives how far that moves the position in the block.
    #[inline(always)]
    fn take(&mut self, step: u32) -> u32 {
        let num_bits = step & 31;
        self.buffer <<= num_bits;
        self.length -= num_bits as i32;
        step >> 5
    }

    /// Passes over one block of 64 coefficients.
    #[inline]
    fn block(&mut self, dc: &Table, ac: &Table) -> Option<()> {
        let first = self.next(dc)? & 0xffff;
        let mut position = self.take(first);
        // Up to here the first of two codes, which moves by 16 at most, cannot fill the block.
        while position < 48 {
            let pair = self.next(ac)?;
            position += self.take(pair >> 16);
        }
        while position < 64 {
            let pair = self.next(ac)?;
            position += self.take(pair & 0xffff);
        }
        ((position == 64 || position >= CUT_SHORT) && self.length >= 0).then_some(())
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
