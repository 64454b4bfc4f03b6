//! An image's recipe: what is taken cannot break out of an argument or of the line of a shell script
//! that it becomes part of.

use std::path::Path;

use anteroom_image::Recipe;

use crate::text::text;

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    let text = text(bytes);
    let Ok(recipe) = Recipe::parse(Path::new("/recipes/fuzz.toml"), text) else { return };
    assert!(!recipe.name.is_empty() && !recipe.name.contains(['/', '.']));
    let paths = recipe.files.iter().map(|file| &file.path);
    for word in recipe.packages.iter().chain(paths).chain([&recipe.suite]).chain(&recipe.mirror) {
        assert!(!word.is_empty() && !word.starts_with('-'), "{word:?} is no argument");
        let harmful =
            |c: char| c.is_whitespace() || c.is_control() || "'\"`$\\;&|<>()*?!#,".contains(c);
        assert!(!word.contains(harmful), "{word:?} would be more than one word in a shell");
    }
    for file in &recipe.files {
        assert!(file.path.starts_with('/') && !file.path.split('/').any(|part| part == ".."));
        assert!(file.mode & !0o7777 == 0);
    }
}
