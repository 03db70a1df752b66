// SPDX-License-Identifier: GPL-2.0-only
//! Ready configuration for iSCSI targets.

use std::path::Path;

/// The target's name for an image called `name`: only what RFC 3722 allows.
pub fn target_name(name: &str) -> String {
    let mut clean: String = name
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    clean.truncate(150);
    format!("iqn.2026-11.local.imgstream:{clean}")
}

/// A file for /etc/tgt/conf.d.
pub fn tgt(target: &str, file: &Path) -> String {
    let file = file.display();
    format!(
        "<target {target}>\n    <backing-store {file}>\n        readonly 1\n        \
         block-size 512\n    </backing-store>\n</target>\n"
    )
}

/// Commands for LIO's targetcli, whose first LUN would be 0; tgt's is 1, and so is ours if none is named.
pub fn lio(target: &str, name: &str, file: &Path, lun_bytes: u64) -> String {
    let file = file.display();
    let store = target_name(name);
    let store = store.rsplit(':').next().unwrap_or("image").to_string();
    format!(
        "targetcli /backstores/fileio create name={store} file_or_dev={file} size={lun_bytes} write_back=false\n\
         targetcli /iscsi create {target}\n\
         targetcli /iscsi/{target}/tpg1/luns create /backstores/fileio/{store} lun=1\n\
         targetcli /iscsi/{target}/tpg1 set attribute authentication=0 generate_node_acls=1 \
         cache_dynamic_acls=1 demo_mode_write_protect=1\n\
         targetcli saveconfig\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_legal() {
        assert_eq!(
            target_name("My Debian_13/x"),
            "iqn.2026-11.local.imgstream:my-debian-13-x"
        );
    }

    #[test]
    fn snippets_are_read_only() {
        let target = target_name("d");
        let file = Path::new("/srv/d.lun");
        assert!(tgt(&target, file).contains("readonly 1"));
        let lio = lio(&target, "d", file, 4096);
        assert!(lio.contains("demo_mode_write_protect=1"));
        assert!(lio.contains("name=d file_or_dev=/srv/d.lun"));
        assert!(lio.contains("luns create /backstores/fileio/d lun=1\n"));
    }
}
