//! `netsplit init`: the two files that everybody starts from.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};

use crate::cli::InitArgs;

const FILES: [(&str, &str); 2] = [
    ("quickstart.yaml", include_str!("../../../../examples/quickstart.yaml")),
    ("split-brain.yaml", include_str!("../../../../examples/split-brain.yaml")),
];

pub fn run(args: &InitArgs) -> Result<()> {
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot create {}", args.dir.display()))?;
    if !args.force
        && let Some(there) = FILES.iter().map(|(name, _)| args.dir.join(name)).find(|path| path.exists())
    {
        bail!("{} is there already: use --force to overwrite it", there.display());
    }
    for (name, text) in FILES {
        let path = args.dir.join(name);
        let mut file =
            std::fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    println!("next: netsplit run {}", args.dir.join("split-brain.yaml").display());
    Ok(())
}
