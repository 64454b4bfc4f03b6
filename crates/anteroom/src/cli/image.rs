//! `anteroom image …`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anteroom_controller::load_providers;
use anteroom_image::{BuildOptions, ImageSummary, Recipe, Verdict};
use anteroom_private as private;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::folders::{ImagesDir, cache_dir};
use super::progress::Work;
use super::sessions::show;
use super::snapshot;
use super::table::table;
use super::verify::{self, How};
use crate::embedded;

/// Golden images.
#[derive(clap::Subcommand)]
pub enum Image {
    /// Build the image of a recipe, unless it exists, and verify it.
    Build {
        /// The recipe (TOML).
        recipe: PathBuf,
        /// Build even if the image exists.
        #[arg(long)]
        force: bool,
        /// A folder of provider files, in addition to the shipped ones, for recipes that name providers.
        #[arg(long, value_name = "FOLDER", env = "ANTEROOM_PROVIDERS")]
        providers: Option<PathBuf>,
        /// Do not verify the image; `serve` will refuse it.
        #[arg(long)]
        no_verify: bool,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        place: Place,
    },
    /// Boot an image on a CPU profile, run everything in it, and record whether it works.
    Verify {
        /// The image's name.
        #[arg(value_parser = image_name)]
        image: String,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        place: Place,
    },
    /// Start an image's VM, save it with its browser open, and have sign-ins start from that.
    ///
    /// The driver, CPU profile, memory and processors must be those that `serve` is started with.
    Snapshot {
        /// The image's name.
        #[arg(value_parser = image_name)]
        image: String,
        #[command(flatten)]
        how: snapshot::How,
        #[command(flatten)]
        place: Place,
    },
    /// List the images, when they were built, and which one of each name is used (the newest).
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Remove an image by name or digest.
    Rm {
        /// A name (all its images) or a digest (one image).
        #[arg(value_parser = image_name)]
        image: String,
        #[command(flatten)]
        place: Place,
    },
}

/// No image is called nothing: most likely a variable of a script is empty.
fn image_name(name: &str) -> Result<String, String> {
    match name.trim() {
        "" => {
            Err("an image's name is never empty; `anteroom image list` lists the names".to_owned())
        }
        _ => Ok(name.to_owned()),
    }
}

/// Where images are, and how to print.
#[derive(clap::Args)]
pub struct Place {
    #[command(flatten)]
    images: ImagesDir,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Place {
    fn dir(&self) -> PathBuf {
        self.images.path()
    }

    /// All images; none where the usual folder was not needed yet.
    fn list(&self) -> Result<Vec<ImageSummary>> {
        if let Some(dir) = self.images.named().filter(|dir| !dir.is_dir()) {
            bail!(
                "the folder {} does not exist; pass the folder of golden images with --images-dir, or leave that out for the usual one",
                dir.display()
            );
        }
        Ok(anteroom_image::list(&self.dir()))
    }
}

/// Does what was asked.
pub fn run(command: &Image) -> Result<()> {
    match command {
        Image::Build { recipe, force, providers, no_verify, how, place } => {
            let how = (!no_verify).then_some(how);
            build(recipe, providers.as_deref(), *force, how, place)
        }
        Image::Verify { image, how, place } => verify::run(&place.dir(), image, how, place.json),
        Image::Snapshot { image, how, place } => {
            snapshot::run(&place.dir(), image, how, place.json)
        }
        Image::List { place } => {
            let images = place.list()?;
            let reported = images.iter().map(as_value).collect();
            show(place.json, &Value::Array(reported), |_| {
                let head = [
                    "IMAGE",
                    "DIGEST",
                    "BUILT",
                    "KERNEL",
                    "MiB",
                    "DEFAULT",
                    "TEMPLATES",
                    "VERIFIED FOR",
                ];
                table(head, images.iter().map(row))
            })
        }
        Image::Rm { image, place } => {
            let removed = anteroom_image::remove(&place.dir(), image)?;
            let reported: Vec<Value> = removed.iter().map(as_value).collect();
            show(place.json, &json!({ "removed": reported }), |_| {
                removed
                    .iter()
                    .map(|image| format!("removed {} {}\n", image.name, image.digest))
                    .collect()
            })
        }
    }
}

/// As other JSON of ours: times in milliseconds since the Unix epoch.
fn as_value(image: &ImageSummary) -> Value {
    let services: Vec<&str> = image.services.iter().map(|service| service.name.as_str()).collect();
    let templates: Vec<Value> = anteroom_template::list(&image.dir)
        .iter()
        .map(|one| {
            json!({
                "id": one.id, "createdAt": one.made_unix_ms, "bytes": one.bytes,
                "vmm": one.made_for.vmm, "memoryMib": one.made_for.memory_mib,
            })
        })
        .collect();
    json!({
        "name": image.name,
        "digest": image.digest,
        "dir": image.dir,
        "kernel": image.kernel,
        "createdAt": image.created_at * 1000,
        "bytes": image.bytes,
        "isDefault": image.is_default,
        "services": services,
        "templates": templates,
        "verifications": image.verifications,
    })
}

fn row(image: &ImageSummary) -> [String; 8] {
    let built = SystemTime::UNIX_EPOCH + Duration::from_secs(image.created_at);
    [
        image.name.clone(),
        image.digest.clone(),
        humantime::format_rfc3339_seconds(built).to_string(),
        image.kernel.clone(),
        (image.bytes / 1024 / 1024).to_string(),
        if image.is_default { "yes" } else { "no" }.to_owned(),
        anteroom_template::list(&image.dir).len().to_string(),
        verified_for(image),
    ]
}

/// The profiles that it passed for, and those that it failed on.
fn verified_for(image: &ImageSummary) -> String {
    let of = |verdict: Verdict| {
        let with = image.verifications.iter().filter(|one| one.verdict == verdict);
        with.map(|one| one.cpu.profile.as_str()).collect::<Vec<_>>().join(", ")
    };
    match (of(Verdict::Passed), of(Verdict::Failed)) {
        (passed, failed) if passed.is_empty() && failed.is_empty() => "nothing".to_owned(),
        (passed, failed) if failed.is_empty() => passed,
        (passed, failed) if passed.is_empty() => format!("nothing (failed for {failed})"),
        (passed, failed) => format!("{passed} (failed for {failed})"),
    }
}

/// The recipe with what its providers need.
fn with_providers(mut recipe: Recipe, folder: Option<&std::path::Path>) -> Result<Recipe> {
    if recipe.providers.is_empty() {
        return Ok(recipe);
    }
    let known = load_providers(&embedded::providers(), folder)?;
    for name in recipe.providers.clone() {
        let provider = known.values().find(|provider| provider.id.as_str() == name);
        let provider = provider.with_context(|| {
            format!("the recipe names the provider {name:?}, which does not exist; pass the folder of its file with --providers")
        })?;
        recipe.add(provider)?;
    }
    Ok(recipe)
}

fn build(
    recipe: &std::path::Path,
    providers: Option<&std::path::Path>,
    force: bool,
    how: Option<&How>,
    place: &Place,
) -> Result<()> {
    if !recipe.exists() {
        bail!(
            "the recipe {} does not exist; pass the path of one (docs/operate/images.md says how to write it)",
            recipe.display()
        );
    }
    let recipe = with_providers(Recipe::read(recipe)?, providers)?;
    // Before the minutes that a build takes.
    let processors = how.map(How::processors).transpose()?.unwrap_or_default();
    let cancel = super::interrupts()?;
    let work = Work::measured(format!("Building image {}", recipe.name));
    let images_dir = place.dir();
    let cache_dir = cache_dir();
    private::check_used(&[&images_dir, &cache_dir])?;
    let built = anteroom_image::build(
        &recipe,
        BuildOptions { images_dir: &images_dir, cache_dir: &cache_dir, force },
        &work,
        &cancel,
    );
    work.finish();
    let built = built?;
    let verified = match how {
        Some(how) => verify::all(&built.dir, how, verify::open(&built.dir, processors))?,
        None => Vec::new(),
    };
    let result = json!({
        "name": built.manifest.name,
        "digest": built.manifest.recipe_digest,
        "dir": built.dir,
        "cached": built.cached,
        "kernel": built.manifest.kernel,
        "buildMs": built.manifest.build_ms,
        "packages": built.manifest.packages.len(),
        "verifications": verified.iter().map(verify::as_value).collect::<Vec<_>>(),
    });
    show(place.json, &result, |_| {
        let what = if built.cached { "already exists" } else { "was built" };
        format!("image {} {what}: {}\n", built.manifest.name, built.dir.display())
    })?;
    if !place.json && !verified.is_empty() {
        verify::report(&verified, false)?;
    }
    verify::verdict(&verified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_reported_as_everything_else_is() {
        let image = ImageSummary {
            name: "demo".into(),
            digest: "22".into(),
            dir: "/images/demo/22".into(),
            kernel: "6.1".into(),
            created_at: 3,
            bytes: 1,
            is_default: true,
            services: Vec::new(),
            verifications: Vec::new(),
        };
        let reported = as_value(&image);
        assert_eq!((&reported["createdAt"], &reported["isDefault"]), (&json!(3000), &json!(true)));
        assert!(!reported.as_object().unwrap().keys().any(|name| name.contains('_')), "{reported}");
    }
}
