//! Writes the definitions of the custom resources into a folder: `make gen`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: crds FOLDER")?;
    for (file, definition) in netsplit_spec::crd::definitions() {
        let path = PathBuf::from(&folder).join(file);
        std::fs::write(&path, serde_saphyr::to_string(&definition)?)?;
        println!("{}", path.display());
    }
    Ok(())
}
