//! The scripts, with the keys filled in.

use std::sync::LazyLock;

use redis::Script;

use super::keys;

/// All scripts, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lua {
    Create,
    Apply,
    Note,
    Lease,
    Release,
    Beat,
    Config,
    Enqueue,
    Append,
    WfCommit,
    WfCreate,
    WfDelete,
    WfAdopt,
    WfClaim,
    WfSave,
    WfRevise,
    WfForget,
    WfSchedule,
}

struct Loaded {
    lua: Lua,
    source: String,
    hash: String,
}

static SCRIPTS: LazyLock<[Loaded; 18]> = LazyLock::new(|| {
    Lua::ALL.map(|lua| {
        let source = fill(&lua.template());
        let hash = Script::new(&source).get_hash().to_owned();
        Loaded { lua, source, hash }
    })
});

fn fill(source: &str) -> String {
    keys::IN_SCRIPTS.iter().fold(source.to_owned(), |text, (name, key)| {
        text.replace(&format!("@{name}@"), key)
    })
}

impl Lua {
    /// Every script.
    const ALL: [Self; 18] = [
        Self::Create,
        Self::Apply,
        Self::Note,
        Self::Lease,
        Self::Release,
        Self::Beat,
        Self::Config,
        Self::Enqueue,
        Self::Append,
        Self::WfCommit,
        Self::WfCreate,
        Self::WfDelete,
        Self::WfAdopt,
        Self::WfClaim,
        Self::WfSave,
        Self::WfRevise,
        Self::WfForget,
        Self::WfSchedule,
    ];

    fn template(self) -> String {
        const PRELUDE: &str = include_str!("lua/prelude.lua");
        const RUNS: &str = include_str!("lua/wf_prelude.lua");
        match self {
            Self::Create => [PRELUDE, include_str!("lua/create.lua")].concat(),
            Self::Apply => [PRELUDE, include_str!("lua/apply.lua")].concat(),
            Self::Note => [PRELUDE, include_str!("lua/note.lua")].concat(),
            Self::Lease => include_str!("lua/lease.lua").to_owned(),
            Self::Release => include_str!("lua/release.lua").to_owned(),
            Self::Beat => include_str!("lua/beat.lua").to_owned(),
            Self::Config => [PRELUDE, include_str!("lua/config.lua")].concat(),
            Self::Enqueue => [PRELUDE, include_str!("lua/enqueue.lua")].concat(),
            Self::Append => include_str!("lua/append.lua").to_owned(),
            Self::WfCommit => [PRELUDE, RUNS, include_str!("lua/wf_commit.lua")].concat(),
            Self::WfCreate => [PRELUDE, RUNS, include_str!("lua/wf_create.lua")].concat(),
            Self::WfDelete => [PRELUDE, RUNS, include_str!("lua/wf_delete.lua")].concat(),
            Self::WfAdopt => [PRELUDE, include_str!("lua/wf_adopt.lua")].concat(),
            Self::WfClaim => include_str!("lua/wf_claim.lua").to_owned(),
            Self::WfSave => [PRELUDE, RUNS, include_str!("lua/wf_save.lua")].concat(),
            Self::WfRevise => [PRELUDE, include_str!("lua/wf_revise.lua")].concat(),
            Self::WfForget => [PRELUDE, RUNS, include_str!("lua/wf_forget.lua")].concat(),
            Self::WfSchedule => [PRELUDE, RUNS, include_str!("lua/wf_schedule.lua")].concat(),
        }
    }

    /// What a server has to load.
    pub(super) fn sources() -> Vec<&'static str> {
        SCRIPTS.iter().map(|loaded| loaded.source.as_str()).collect()
    }

    fn hash(self) -> &'static str {
        SCRIPTS
            .iter()
            .find(|loaded| loaded.lua == self)
            .map_or("", |loaded| loaded.hash.as_str())
    }

    /// The call of this script on one key, its arguments to follow.
    pub(super) fn call(self, key: &str) -> redis::Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(self.hash()).arg(1).arg(key);
        cmd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_a_script_is_a_key() {
        for source in Lua::sources() {
            assert!(!source.contains('@'), "an unknown name is left in {source}");
        }
    }
}
