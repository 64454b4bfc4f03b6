//! Names and ids of another machine: its host, user, group and boot.

use std::path::Path;

/// Who one is there, and on which host.
pub const USER: &str = "someone";
pub const HOST: &str = "otherhost";

/// The list of users with another name, ids and home for one; user and group.
pub fn renamed(users: &str, was: (u32, u32), is: (u32, u32), home: &Path) -> String {
    let (uid, gid) = (was.0.to_string(), was.1.to_string());
    let (user, group) = is;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [_, password, id, its, _, _, shell] if id == uid => {
                let group = if its == gid { group.to_string() } else { its.to_owned() };
                format!("{USER}:{password}:{user}:{group}::{}:{shell}\n", home.display())
            }
            _ => format!("{line}\n"),
        }
    };
    users.lines().map(line).collect()
}

/// The list of groups with another name and id for one.
pub fn renamed_group(groups: &str, was: u32, is: u32) -> String {
    let was = was.to_string();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [_, password, id, _] if id == was => format!("{USER}:{password}:{is}:\n"),
            _ => format!("{line}\n"),
        }
    };
    groups.lines().map(line).collect()
}

/// The list of hosts with another name for one.
pub fn with_another_host(hosts: &str, name: &str) -> String {
    let word = |word: &str| match word.split_once('.') {
        _ if word == name => HOST.to_owned(),
        Some((first, domain)) if first == name => format!("{HOST}.{domain}"),
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ") + "\n";
    hosts.lines().map(line).collect()
}

/// In the kernel's own form.
pub fn uuid(random: u128) -> String {
    let id = format!("{random:032x}");
    [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_another_name_id_and_home() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\nperson:x:1000:1000:P,,,:/home/person:/bin/sh\n";
        let there = renamed(users, (1000, 1000), (5000, 5000), Path::new("/home/someone"));
        assert_eq!(
            there,
            "root:x:0:0:root:/root:/bin/bash\nsomeone:x:5000:5000::/home/someone:/bin/sh\n"
        );
    }

    #[test]
    fn its_group_and_host_have_other_names_and_the_rest_stays() {
        let groups = "root:x:0:\nperson:x:1000:ada\naudio:x:29:person\n";
        let there = "root:x:0:\nsomeone:x:5000:\naudio:x:29:person\n";
        assert_eq!(renamed_group(groups, 1000, 5000), there);
        let hosts = "127.0.0.1\tlocalhost\n127.0.1.1\tmine.home.arpa mine\n";
        let there = "127.0.0.1 localhost\n127.0.1.1 otherhost.home.arpa otherhost\n";
        assert_eq!(with_another_host(hosts, "mine"), there);
        assert_eq!(uuid(1), "00000000-0000-0000-0000-000000000001");
    }
}
