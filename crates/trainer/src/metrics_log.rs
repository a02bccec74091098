//! Figures of a run while it trains: one JSON object a line, and a TensorBoard event file.
//!
//! They are for watching and hold the time of day, so they are no part of an artifact. A run that goes on after a stop adds to
//! the lines and begins another event file in the same folder, as TensorBoard expects.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use flier_model::EpochSummary;
use serde_json::json;

use crate::Error;

/// File name of the lines.
pub const LINES_FILE: &str = "metrics.jsonl";
/// First part of the name of an event file, by which TensorBoard finds it.
const EVENTS_PREFIX: &str = "events.out.tfevents";

/// Open files of one run.
#[derive(Debug)]
pub struct MetricsLog {
    folder: PathBuf,
    files: Mutex<Files>,
}

#[derive(Debug)]
struct Files {
    lines: File,
    events: File,
}

impl MetricsLog {
    /// Opens the files of `run` below `folder`, which are made if they are missing.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written.
    pub fn open(folder: &Path, run: &str) -> Result<Self, Error> {
        let folder = folder.join(run);
        let at = |source| Error::Write { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(at)?;
        let append = |name: &str| OpenOptions::new().create(true).append(true).open(folder.join(name));
        let now = wall_time();
        let events_name = format!("{EVENTS_PREFIX}.{:010}.{}", now as u64, std::process::id());
        let mut files =
            Files { lines: append(LINES_FILE).map_err(at)?, events: append(&events_name).map_err(at)? };
        files.events.write_all(&record(&version_event(now))).map_err(at)?;
        Ok(Self { folder, files: Mutex::new(files) })
    }

    /// Adds the figures of one step (from 1).
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written.
    pub fn step(&self, step: u64, pass: &str, loss: f64, learning_rate: f64) -> Result<(), Error> {
        let line = json!({ "step": step, "pass": pass, "loss": loss, "learning_rate": learning_rate });
        let figures = [(format!("loss/{pass}"), loss), ("learning_rate".to_owned(), learning_rate)];
        self.write(&line, step, &figures)
    }

    /// Adds the figures of a finished epoch.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written.
    pub fn epoch(&self, summary: &EpochSummary) -> Result<(), Error> {
        let figures = [
            ("epoch/real_loss", summary.real_loss),
            ("epoch/generated_loss", summary.generated_loss),
            ("epoch/latent_loss", summary.latent_loss),
            ("epoch/val_accuracy", summary.val_accuracy),
            ("epoch/ema_val_accuracy", summary.ema_val_accuracy),
        ];
        let figures = figures.into_iter().filter_map(|(tag, value)| Some((tag.to_owned(), value?)));
        let figures: Vec<_> = figures.collect();
        self.write(&json!(summary), u64::from(summary.epoch), &figures)
    }

    fn write(&self, line: &serde_json::Value, step: u64, figures: &[(String, f64)]) -> Result<(), Error> {
        let at = |source| Error::Write { path: self.folder.clone(), source };
        let mut files = self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        files.lines.write_all(format!("{line}\n").as_bytes()).map_err(at)?;
        let event = scalar_event(wall_time(), step, figures);
        files.events.write_all(&record(&event)).map_err(at)
    }
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A record of a TFRecord file: length, its checksum, the data, their checksum.
pub fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&masked_crc(data).to_le_bytes());
    out
}

/// CRC-32C, rotated and shifted as TensorFlow does, so that a checksum of data that hold checksums stays meaningful.
fn masked_crc(data: &[u8]) -> u32 {
    const MASK_DELTA: u32 = 0xa282_ead8;
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK_DELTA)
}

/// The first event of a file (`Event { wall_time = 1; file_version = 3 }`).
pub fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    put_f64(&mut event, 1, wall_time);
    put_bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// An event of scalars (`Event { wall_time = 1; step = 2; summary = 5 }`, `Summary { value = 1 }`,
/// `Value { tag = 1; simple_value = 2 }`).
pub fn scalar_event(wall_time: f64, step: u64, figures: &[(String, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, figure) in figures {
        let mut value = Vec::new();
        put_bytes(&mut value, 1, tag.as_bytes());
        put_key(&mut value, 2, FIXED32);
        value.extend_from_slice(&(*figure as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &value);
    }
    let mut event = Vec::new();
    put_f64(&mut event, 1, wall_time);
    put_key(&mut event, 2, VARINT);
    put_varint(&mut event, step);
    put_bytes(&mut event, 5, &summary);
    event
}

/// Wire types of Protocol Buffers.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(out, (field << 3) | wire_type);
}

fn put_f64(out: &mut Vec<u8>, field: u64, value: f64) {
    put_key(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    put_key(out, field, BYTES);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}
