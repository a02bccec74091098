//! UNet and autoencoder against diffusers, and strict loading.
//!
//! Both sides compute in f32 and add up in different orders; 1e-4 is some hundred times the distance that this gives.

use burn::tensor::{Device, Distribution, Tensor};
use clip_model::SaveDtype;
use sd_model::{AutoencoderKl, AutoencoderKlConfig, UNet2DCondition, UNet2DConditionConfig};

use crate::golden::{Golden, assert_close, distance, path};

const TOLERANCE: f32 = 1e-4;

fn unet(name: &str, device: &Device) -> UNet2DCondition {
    let config = UNet2DConditionConfig::from_file(&path(name).join("config.json")).unwrap();
    let unet = config.init(device).unwrap();
    unet.load(&path(name).join("diffusion_pytorch_model.safetensors")).unwrap()
}

fn autoencoder(name: &str, device: &Device) -> AutoencoderKl {
    let config = AutoencoderKlConfig::from_file(&path(name).join("config.json")).unwrap();
    let autoencoder = config.init(device).unwrap();
    autoencoder.load(&path(name).join("diffusion_pytorch_model.safetensors")).unwrap()
}

fn unet_case(name: &str) {
    let device = backend::test_device();
    let golden = Golden::open(&format!("{name}/golden.safetensors"), &device);
    let output = unet(name, &device).forward(
        golden.tensor("sample"),
        golden.tensor("timesteps"),
        golden.tensor("encoder_hidden_states"),
    );
    assert_close(name, output, golden.tensor::<4>("output"), TOLERANCE);
}

fn autoencoder_case(name: &str) {
    let device = backend::test_device();
    let golden = Golden::open(&format!("{name}/golden.safetensors"), &device);
    let autoencoder = autoencoder(name, &device);
    let posterior = autoencoder.encode(golden.tensor("pixels"));
    let what = |part: &str| format!("{name} {part}");
    assert_close(&what("mean"), posterior.mode(), golden.tensor::<4>("mean"), TOLERANCE);
    assert_close(&what("logvar"), posterior.logvar.clone(), golden.tensor::<4>("logvar"), TOLERANCE);
    let sample = posterior.sample(golden.tensor("noise"));
    assert_close(&what("sample"), sample, golden.tensor::<4>("sample"), TOLERANCE);
    // The divergence is a sum over hundreds of elements: its tolerance grows with its size.
    assert_close(&what("kl"), posterior.kl(), golden.tensor::<1>("kl"), 10.0 * TOLERANCE);
    let decoded = autoencoder.decode(golden.tensor("mean"));
    assert_close(&what("decoded"), decoded, golden.tensor::<4>("decoded"), TOLERANCE);
}

#[test]
fn unet_with_projection_by_convolution_matches_diffusers() {
    unet_case("unet_sd1");
}

#[test]
fn unet_with_linear_projection_and_heads_per_stage_matches_diffusers() {
    unet_case("unet_sd2");
}

#[test]
fn attention_upcast_to_f32_is_read_saved_and_the_same_in_f32() {
    let device = backend::test_device();
    let folder = tempfile::tempdir().unwrap();
    let config = UNet2DConditionConfig::from_file(&path("unet_sd2/config.json")).unwrap();
    assert!(!config.upcast_attention);
    let file = folder.path().join("config.json");
    UNet2DConditionConfig { upcast_attention: true, ..config }.save(&file).unwrap();
    let config = UNet2DConditionConfig::from_file(&file).unwrap();
    assert!(config.upcast_attention);
    let weights = path("unet_sd2/diffusion_pytorch_model.safetensors");
    let upcast = config.init(&device).unwrap().load(&weights).unwrap();
    let golden = Golden::open("unet_sd2/golden.safetensors", &device);
    let [sample, timesteps, context] = ["sample", "timesteps", "encoder_hidden_states"];
    let output = upcast.forward(golden.tensor(sample), golden.tensor(timesteps), golden.tensor(context));
    assert_close("upcast", output, golden.tensor::<4>("output"), TOLERANCE);
}

#[test]
fn autoencoder_with_three_stages_matches_diffusers() {
    autoencoder_case("autoencoder");
}

#[test]
fn autoencoder_with_one_stage_matches_diffusers() {
    autoencoder_case("autoencoder_one_stage");
}

#[test]
#[allow(clippy::print_stderr)]
fn a_latent_does_not_depend_on_the_others_in_its_batch() {
    let device = backend::test_device();
    let golden = Golden::open("unet_sd2/golden.safetensors", &device);
    let unet = unet("unet_sd2", &device);
    let [sample, timesteps, context] = ["sample", "timesteps", "encoder_hidden_states"];
    let part = |start: usize, count: usize| {
        unet.forward(
            golden.tensor::<4>(sample).narrow(0, start, count),
            golden.tensor::<1>(timesteps).narrow(0, start, count),
            golden.tensor::<3>(context).narrow(0, start, count),
        )
    };
    let whole = part(0, 5);
    let ones = Tensor::cat((0..5).map(|i| part(i, 1)).collect(), 0);
    let twos = Tensor::cat(vec![part(0, 2), part(2, 2), part(4, 1)], 0);
    let (ones, twos) = (distance(ones, whole.clone()), distance(twos, whole));
    eprintln!("batches of 1: {ones:.2e}, of 2: {twos:.2e} from a batch of 5");
    // A matrix product may be tiled differently for another number of rows, which changes the order of its sums.
    assert!(ones <= 1e-5 && twos <= 1e-5);
}

#[test]
fn saved_weights_load_again_bit_for_bit() {
    let device = backend::test_device();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("diffusion_pytorch_model.safetensors");
    for name in ["unet_sd1", "unet_sd2"] {
        unet(name, &device).save(&file, SaveDtype::F32).unwrap();
        assert_same_tensors(&path(name).join("diffusion_pytorch_model.safetensors"), &file);
    }
    autoencoder("autoencoder", &device).save(&file, SaveDtype::F32).unwrap();
    assert_same_tensors(&path("autoencoder").join("diffusion_pytorch_model.safetensors"), &file);
}

/// The file that diffusers wrote and the file that we wrote hold the same names, shapes, types and bytes.
fn assert_same_tensors(expected: &std::path::Path, found: &std::path::Path) {
    let [expected, found] = [expected, found].map(|path| std::fs::read(path).unwrap());
    let [expected, found] = [&expected, &found].map(|bytes| {
        let mut tensors = safetensors::SafeTensors::deserialize(bytes).unwrap().tensors();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors
    });
    assert_eq!(expected.len(), found.len());
    for ((name, expected), (other, found)) in expected.iter().zip(&found) {
        assert_eq!(name, other);
        assert_eq!(expected.dtype(), found.dtype(), "{name}");
        assert_eq!(expected.shape(), found.shape(), "{name}");
        assert!(expected.data() == found.data(), "{name}");
    }
}

#[test]
fn attention_names_of_old_autoencoder_checkpoints_are_accepted() {
    let device = backend::test_device();
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old.safetensors");
    let bytes = std::fs::read(path("autoencoder/diffusion_pytorch_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let rename = |name: &str| {
        [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")]
            .iter()
            .fold(name.to_owned(), |name, (new, old)| name.replace(&format!(".{new}."), &format!(".{old}.")))
    };
    let renamed: Vec<_> = tensors.tensors().into_iter().map(|(name, view)| (rename(&name), view)).collect();
    safetensors::serialize_to_file(renamed, None, &old).unwrap();

    let config = AutoencoderKlConfig::from_file(&path("autoencoder/config.json")).unwrap();
    let loaded = config.init(&device).unwrap().load(&old).unwrap();
    let latents = Tensor::<4>::random([1, 4, 3, 4], Distribution::Normal(0.0, 1.0), &device);
    let expected = autoencoder("autoencoder", &device).decode(latents.clone());
    assert_eq!(distance(loaded.decode(latents), expected), 0.0);
}

#[test]
fn a_checkpoint_of_another_shape_is_refused() {
    let device = backend::test_device();
    let weights = path("unet_sd2/diffusion_pytorch_model.safetensors");
    let config = UNet2DConditionConfig::from_file(&path("unet_sd2/config.json")).unwrap();
    let message = |config: &UNet2DConditionConfig| {
        config.init(&device).unwrap().load(&weights).unwrap_err().to_string()
    };
    let deeper = UNet2DConditionConfig { transformer_layers_per_block: 3, ..config.clone() };
    assert!(message(&deeper).contains("missing, first `"), "{}", message(&deeper));
    let shallower = UNet2DConditionConfig { transformer_layers_per_block: 1, ..config.clone() };
    assert!(message(&shallower).contains("unread, first `"), "{}", message(&shallower));
    let wider = UNet2DConditionConfig { cross_attention_dim: 7, ..config };
    assert!(message(&wider).contains("attn2.to_k.weight"), "{}", message(&wider));
}

#[test]
fn a_cut_off_checkpoint_is_refused() {
    let device = backend::test_device();
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.safetensors");
    let bytes = std::fs::read(path("autoencoder/diffusion_pytorch_model.safetensors")).unwrap();
    let config = AutoencoderKlConfig::from_file(&path("autoencoder/config.json")).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..length]).unwrap();
        let error = config.init(&device).unwrap().load(&cut).unwrap_err().to_string();
        assert!(error.contains("cut.safetensors"), "{error}");
    }
}
