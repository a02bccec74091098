//! Device names and burn devices: the only crate that names a back end.
//!
//! Features: `flex` (default, pure Rust, CPU), `tch` (libtorch, CPU and CUDA), `cuda` (CubeCL).

use burn::tensor::Device;
use std::fmt;
use std::str::FromStr;

/// A device by name: `cpu`, `cuda:N`, `tch-cpu` or `tch-cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSpec {
    /// burn-flex, pure Rust.
    Cpu,
    /// CubeCL on the CUDA device of this index.
    Cuda(usize),
    /// libtorch on the CPU.
    TchCpu,
    /// libtorch on the CUDA device of this index.
    TchCuda(usize),
}

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// No such device name.
    #[error("unknown device `{0}`; expected `cpu`, `cuda:<index>`, `tch-cpu` or `tch-cuda:<index>`")]
    Unknown(String),
    /// The name is known, the build cannot serve it.
    #[error("device `{device}` is not in this build; build with `--features {feature}`")]
    NotCompiledIn {
        /// The device asked for.
        device: DeviceSpec,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Unknown(text.to_owned());
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "tch-cpu" => Ok(Self::TchCpu),
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| unknown()),
            Some(("tch-cuda", index)) => index.parse().map(Self::TchCuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::TchCpu => f.write_str("tch-cpu"),
            Self::TchCuda(index) => write!(f, "tch-cuda:{index}"),
        }
    }
}

impl DeviceSpec {
    /// The burn device, in f32, without autodiff (call [`Device::autodiff`] to train).
    ///
    /// # Errors
    ///
    /// Fails if this build lacks the back end.
    // burn-tch is deprecated upstream and still the fast CPU back end: docs/adr/0002-burn-0.22-and-libtorch.md.
    #[allow(deprecated)]
    pub fn open(self) -> Result<Device, Error> {
        match self {
            #[cfg(feature = "flex")]
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "tch")]
            Self::TchCpu => Ok(Device::libtorch()),
            #[cfg(feature = "tch")]
            Self::TchCuda(index) => Ok(Device::libtorch_cuda(index)),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => Ok(Device::cuda(index)),
            #[allow(unreachable_patterns)]
            device => Err(Error::NotCompiledIn {
                device,
                feature: match device {
                    Self::Cpu => "flex",
                    Self::Cuda(_) => "cuda",
                    Self::TchCpu | Self::TchCuda(_) => "tch",
                },
            }),
        }
    }
}

/// The device that tests compute on: `FLIER_TEST_DEVICE`, or `cpu`.
///
/// # Panics
///
/// Panics if the variable names no device of this build: a test on another device than asked for proves nothing.
pub fn test_device() -> Device {
    let name = std::env::var("FLIER_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    let device = name.parse().and_then(DeviceSpec::open);
    device.unwrap_or_else(|error| panic!("FLIER_TEST_DEVICE: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for name in ["cpu", "cuda:1", "tch-cpu", "tch-cuda:0"] {
            assert_eq!(name.parse::<DeviceSpec>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn an_unknown_device_lists_the_known_ones() {
        let message = "gpu".parse::<DeviceSpec>().unwrap_err().to_string();
        assert!(message.contains("`gpu`") && message.contains("cuda:<index>"), "{message}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_back_end_that_is_not_built_names_its_feature() {
        let message = DeviceSpec::Cuda(0).open().unwrap_err().to_string();
        assert_eq!(message, "device `cuda:0` is not in this build; build with `--features cuda`");
    }
}
