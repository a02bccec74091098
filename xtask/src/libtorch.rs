//! `libtorch`: a CPU-only libtorch for the `tch` back end, put together from the wheels of the Python package index.
//!
//! torch-sys 0.22 wants libtorch 2.9.0. The torch wheel holds it beside much that is not needed; its shared libraries
//! link two small CUDA libraries even where no GPU is used, which are in wheels of their own.

use anyhow::{Context, bail, ensure};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::terminal;

/// Version of libtorch that the bindings want.
const VERSION: &str = "2.9.0";

/// The wheels with the SHA-256 of their files; which Python they are for does not matter, as none is used.
const WHEELS: [(&str, &str); 3] = [
    ("torch==2.9.0", "51de31219c97c51cf4bf2be94d622e3deb5dcc526c6dc00e97c17eaec0fc1d67"),
    ("nvidia-cuda-runtime-cu12==12.8.90", "adade8dcbd0edf427b7204d480d6066d33902cab2a4707dcfc48a2d0fd44ab90"),
    ("nvidia-cuda-cupti-cu12==12.8.90", "ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182"),
];

/// Unpacks the headers and the five libraries from the wheels in folder 1 to folder 2.
const UNPACK: &str = r#"
import pathlib, shutil, sys, zipfile
wheels, target = map(pathlib.Path, sys.argv[1:])
libraries = {"libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.12", "libcupti.so.12"}
for wheel in sorted(wheels.glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            inside = pathlib.PurePosixPath(entry.filename)
            if entry.is_dir() or ".." in inside.parts:
                continue
            if inside.name in libraries:
                path = target / "lib" / inside.name
            elif inside.parts[:2] == ("torch", "include"):
                path = target.joinpath(*inside.parts[1:])
            else:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file)
missing = [name for name in sorted(libraries) if not (target / "lib" / name).is_file()]
sys.exit("not in the wheels: " + ", ".join(missing) if missing else 0)
"#;

/// Make a CPU-only libtorch for the `tch` back end (downloads 900 MB, keeps 500 MB)
#[derive(Args)]
pub struct Libtorch {
    /// Folder to make; must not exist yet
    dest: PathBuf,
}

impl Libtorch {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(
            cfg!(all(target_os = "linux", target_arch = "x86_64")),
            "the wheels are for Linux on x86-64; take libtorch {VERSION} for this system from pytorch.org and set \
             LIBTORCH"
        );
        if !self.dest.join("build-version").is_file() {
            self.make()?;
        }
        let dest =
            fs::canonicalize(&self.dest).with_context(|| format!("no folder `{}`", self.dest.display()))?;
        terminal::note("set these to build and run with `--device tch-cpu`:");
        terminal::print(format_args!("export LIBTORCH={}", dest.display()));
        terminal::print(format_args!("export LD_LIBRARY_PATH={}/lib", dest.display()));
        Ok(ExitCode::SUCCESS)
    }

    fn make(&self) -> anyhow::Result<()> {
        let dest = &self.dest;
        ensure!(
            !dest.exists(),
            "`{}` exists and is not a libtorch of this command; name another folder",
            dest.display()
        );
        let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
        let work = tempfile::Builder::new().prefix(".libtorch-").tempdir_in(parent);
        let work = work.with_context(|| format!("cannot write in `{}`", parent.display()))?;
        let (wheels, made) = (work.path().join("wheels"), work.path().join("libtorch"));
        download(work.path(), &wheels)?;
        terminal::note("unpacking");
        let mut unpack = Command::new("python3");
        unpack.args(["-c", UNPACK]).arg(&wheels).arg(&made);
        succeed(unpack, "unpack the wheels")?;
        // The CUDA wheel's libtorch.so loads libtorch_cuda.so; the CPU library is all that is needed.
        std::os::unix::fs::symlink("libtorch_cpu.so", made.join("lib/libtorch.so"))
            .context("cannot link libtorch.so")?;
        fs::write(made.join("build-version"), format!("{VERSION}\n"))
            .context("cannot write `build-version`")?;
        fs::rename(&made, dest).with_context(|| format!("cannot make `{}`", dest.display()))
    }
}

/// Downloads the pinned wheels to `wheels`; pip refuses a file with another digest.
fn download(work: &Path, wheels: &Path) -> anyhow::Result<()> {
    let pins: String =
        WHEELS.iter().map(|(wheel, sha256)| format!("{wheel} --hash=sha256:{sha256}\n")).collect();
    let requirements = work.join("requirements.txt");
    fs::write(&requirements, pins).with_context(|| format!("cannot write `{}`", requirements.display()))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]);
    pip.args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"]);
    for platform in ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"] {
        pip.args(["--platform", platform]);
    }
    pip.arg("--requirement").arg(&requirements).arg("--dest").arg(wheels);
    succeed(pip, "download the wheels")
}

fn succeed(mut command: Command, what: &str) -> anyhow::Result<()> {
    // Its messages are for people: stdout is for the two variables.
    let status = command.stdout(std::io::stderr()).status().with_context(|| {
        format!("cannot {what}: cannot start `{}`; install it", command.get_program().to_string_lossy())
    })?;
    if !status.success() {
        bail!("cannot {what}: {status}; the messages are above");
    }
    Ok(())
}
