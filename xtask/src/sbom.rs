//! The bill of materials of a distribution: every crate whose code is in its binaries, as CycloneDX JSON
//! (<https://cyclonedx.org/docs/1.6/json/>).

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::{binaries, workspace};

/// `Cargo.lock`, which knows the SHA-256 of every crate of a registry.
#[derive(Deserialize)]
struct Lock {
    package: Vec<LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The crates in the binaries of `packages`, built for `device`, with version, licence and checksum.
///
/// # Errors
///
/// Fails if cargo cannot tell the crates, or one of a registry has no checksum in `Cargo.lock`.
pub fn bill_of_materials(packages: &[&str], device: Option<&str>) -> anyhow::Result<Value> {
    let lock = workspace::path("Cargo.lock");
    let text = std::fs::read_to_string(&lock).with_context(|| format!("cannot read `{}`", lock.display()))?;
    let lock: Lock = toml::from_str(&text).context("`Cargo.lock` cannot be read")?;
    let packages_of_lock = lock.package.into_iter().map(|p| ((p.name, p.version), p.checksum));
    let checksums: BTreeMap<(String, String), Option<String>> = packages_of_lock.collect();
    let components: Vec<Value> = crates(packages, device)?
        .iter()
        .map(|line| component(line, &checksums).with_context(|| format!("the crate `{line}`")))
        .collect::<anyhow::Result<_>>()?;
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": { "type": "application", "name": "flier", "version": env!("CARGO_PKG_VERSION") },
        },
        "components": components,
    }))
}

/// The crates as `NAME vVERSION (SOURCE)<tab>LICENCE`; procedural macros and build scripts leave no code in a binary.
fn crates(packages: &[&str], device: Option<&str>) -> anyhow::Result<BTreeSet<String>> {
    let mut cargo = workspace::cargo();
    cargo.args(["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe"]);
    binaries::select(&mut cargo, packages, device)?;
    let output = cargo.args(["--format", "{p}\t{l}"]).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`cargo tree` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let lines = String::from_utf8(output.stdout).context("`cargo tree` wrote no UTF-8")?;
    Ok(lines.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn component(line: &str, checksums: &BTreeMap<(String, String), Option<String>>) -> anyhow::Result<Value> {
    let (package, licence) = line.split_once('\t').context("names no licence")?;
    let mut words = package.splitn(3, ' ');
    let name = words.next().context("has no name")?;
    let version = words.next().and_then(|word| word.strip_prefix('v')).context("has no version")?;
    let is_own = words.next().is_some();
    let checksum = checksums.get(&(name.to_owned(), version.to_owned())).context("is not in `Cargo.lock`")?;
    let mut component = json!({ "type": "library", "name": name, "version": version });
    if !licence.is_empty() {
        // Older crates write `/` for `OR`.
        let expression = licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if !is_own {
        let checksum = checksum.as_ref().context("has no checksum in `Cargo.lock`")?;
        component["purl"] = json!(format!("pkg:cargo/{name}@{version}"));
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    Ok(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_lists_what_is_in_a_binary_and_nothing_else() {
        let bill = bill_of_materials(&["evaluator"], None).unwrap();
        let components = bill["components"].as_array().unwrap();
        let named = |name: &str| components.iter().find(|component| component["name"] == name);
        let parquet = named("parquet").expect("the evaluator reads Parquet");
        assert_eq!(parquet["licenses"][0]["expression"], "Apache-2.0");
        assert_eq!(parquet["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert_eq!(parquet["purl"], format!("pkg:cargo/parquet@{}", parquet["version"].as_str().unwrap()));
        let own = named("artifacts").expect("an own crate");
        assert_eq!(own["licenses"][0]["expression"], "MIT");
        assert!(own.get("purl").is_none() && own.get("hashes").is_none(), "{own}");
        // Of a test, of a build script, a procedural macro, of another stage.
        for absent in ["assert_cmd", "cc", "serde_derive", "resvg"] {
            assert!(named(absent).is_none(), "{absent}");
        }
    }
}
