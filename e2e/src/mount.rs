//! A folder of files as the kubelet mounts a Secret: each name is a link into a folder behind one link, which is swapped.
//!
//! After kubelet's `AtomicWriter` (k8s.io/kubernetes, `pkg/volume/util/atomic_writer.go`).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The link that is swapped.
const DATA: &str = "..data";

/// Files that change all at once.
pub struct Mount {
    dir: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
    n_written: usize,
}

impl Mount {
    /// Mounts `files` at `dir`.
    pub fn new(dir: &Path, files: &[(&str, &[u8])]) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let mut mount = Self { dir: dir.to_owned(), files: BTreeMap::new(), n_written: 0 };
        mount.replace(files)?;
        for name in mount.files.keys() {
            symlink(Path::new(DATA).join(name), mount.dir.join(name))?;
        }
        Ok(mount)
    }

    /// Where a program finds a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What a file holds now.
    pub fn content(&self, name: &str) -> &[u8] {
        self.files.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Gives these files another content, all at once; the others stay.
    pub fn replace(&mut self, files: &[(&str, &[u8])]) -> Result<()> {
        self.files.extend(files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())));
        self.n_written += 1;
        let fresh = format!("..{}", self.n_written);
        fs::create_dir(self.dir.join(&fresh))?;
        for (name, content) in &self.files {
            fs::write(self.dir.join(&fresh).join(name), content)?;
        }
        let link = self.dir.join("..data_tmp");
        symlink(&fresh, &link)?;
        let old = fs::read_link(self.dir.join(DATA)).ok();
        fs::rename(&link, self.dir.join(DATA))?;
        if let Some(old) = old {
            fs::remove_dir_all(self.dir.join(old))?;
        }
        Ok(())
    }
}
