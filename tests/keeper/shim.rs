//! What a keeper is told by the library of `tests/tools/shim.c`: wrong clocks, and a fork that fails.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::stage::Setting;

/// A library that is loaded into a keeper, and the file by which it is told.
pub(crate) struct Shim {
    dir: tempfile::TempDir,
    library: PathBuf,
}

/// Which number of the file.
#[derive(Debug, Clone, Copy)]
enum Field {
    Wall,
    Boot,
    Fork,
}

impl Shim {
    pub(crate) fn new() -> Result<Self, common::Skipped> {
        let dir = tempfile::Builder::new().prefix("tagfall-shim-").tempdir().unwrap();
        let library = common::compile("shim", dir.path(), &["-shared", "-fPIC", "-ldl"])?;
        let shim = Self { dir, library };
        std::fs::write(shim.file(), [0; 24]).unwrap();
        Ok(shim)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("said")
    }

    /// A keeper with it.
    pub(crate) fn setting(&self) -> Setting {
        let pairs = [("LD_PRELOAD", self.library.clone()), ("TAGFALL_TEST_SHIM", self.file())];
        let env = pairs.map(|(name, path)| (name.to_owned(), path.to_str().unwrap().to_owned())).to_vec();
        Setting { env, ..Setting::default() }
    }

    fn say(&self, field: Field, number: i64) {
        let file = std::fs::File::options().write(true).open(self.file()).unwrap();
        file.write_all_at(&number.to_ne_bytes(), field as u64 * 8).unwrap();
    }

    /// Goes on once a keeper with it runs, whose clocks can be shifted.
    pub(crate) fn need_clocks(&self) -> Result<(), common::Skipped> {
        let said = std::fs::read(self.file()).unwrap();
        common::need(said[..8] == [0; 8], "the kernel seals the code by which clocks are read")
    }

    /// The wall clock is off by so many seconds.
    pub(crate) fn shift_wall(&self, seconds: i64) {
        self.say(Field::Wall, seconds);
    }

    /// The machine has slept for so many seconds.
    pub(crate) fn sleep(&self, seconds: i64) {
        self.say(Field::Boot, seconds);
    }

    /// No process can be made; zero ends that.
    pub(crate) fn fail_forks(&self, error: i32) {
        self.say(Field::Fork, error.into());
    }
}
