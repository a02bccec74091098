//! FLIER (arXiv 2410.07648): the latent encoder, the fine-tuned model, its losses, and the adapters of the baselines.
//!
//! What is known of the method and what is not stands in the doc comments: "the released code" is the authors' public
//! snapshot, "our choice" is ours. The model knows neither artifacts nor training settings; its only input and output
//! is one weight file.

pub mod adapters;
pub mod config;
pub mod error;
pub mod init;
pub mod latent_encoder;
pub mod layers;
pub mod loss;
pub mod model;
pub mod run;
pub mod trained;

pub use adapters::{ClipAdapter, LinearProbe, ProLip, TipAdapter, ZeroShot};
pub use config::{Coupling, FlierConfig, LatentBranchConfig, Pool};
pub use error::Error;
pub use latent_encoder::{LatentClassifier, LatentEncoder, LatentEncoderConfig};
pub use layers::Layers;
pub use model::{FlierModel, HeadInit};
pub use run::{Backbone, Classifier, EpochSummary, RunDescription, Selection, SelectionRule};
pub use trained::{TrainedClassifier, Weights};
