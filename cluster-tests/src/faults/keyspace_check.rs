//! What must be true of the keys in Redis at every moment: all that belongs together is written in one
//! step.

use std::collections::BTreeMap;

use crate::cluster::PREFIX;
use crate::redis::Redis;

/// A lease of the nodes may have this much left, in milliseconds.
const ROUNDING: i64 = 5;

/// One line for each key, as it is at one moment: its kind, what it names, and the time to live.
const SNAPSHOT: &str = "\
local function hex(text) return (string.gsub(text, '.', function(c) return string.format('%02x', string.byte(c)) end)) end \
local lines = { 'now ' .. redis.call('TIME')[1] .. '000' } \
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. ':*')) do \
  local ttl = redis.call('PTTL', key) \
  local cid, part = string.match(key, '^' .. ARGV[1] .. ':{(%w+)}:(%a+)$') \
  local sid = string.match(key, '^' .. ARGV[1] .. ':sid:(.+)$') \
  if part == 's' then \
    local gen, _, exp, id = struct.unpack('>c7I5I6c43', redis.call('GETRANGE', key, 2, 62)) \
    lines[#lines + 1] = string.format('record %s %s%s %d %.0f', cid, hex(gen), id, ttl, exp) \
  elseif part == 'm' then \
    local value = redis.call('GET', key) \
    local state = #value == 56 and 'open' or 'ended' \
    lines[#lines + 1] = string.format('mapping %s %s%s %d %s', cid, hex(string.sub(value, 1, 7)), string.sub(value, 8, 50), ttl, state) \
  elseif part == 'l' then lines[#lines + 1] = 'lease ' .. cid .. ' - ' .. ttl \
  elseif sid then lines[#lines + 1] = 'pointer ' .. sid .. ' ' .. redis.call('GET', key) .. ' ' .. ttl \
  elseif key == ARGV[1] .. ':{sweep}:tombstones' then \
    for _, over in ipairs(redis.call('SMEMBERS', key)) do \
      lines[#lines + 1] = 'tombstone ' .. string.sub(over, 1, 24) .. ' ' .. hex(string.sub(over, 25, 31)) .. string.sub(over, 32) .. ' ' .. ttl \
    end \
  elseif key == ARGV[1] .. ':{sweep}:due' then \
    local due = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') \
    for i = 1, #due, 2 do lines[#lines + 1] = 'due ' .. due[i] .. ' ' .. due[i + 1] .. ' ' .. ttl end \
  else lines[#lines + 1] = 'other ' .. key .. ' - ' .. ttl end \
end \
return table.concat(lines, '\\n')";

/// All keys at one moment.
#[derive(Debug, Clone, Default)]
pub struct Keyspace {
    /// By client: the session, and when it ends.
    records: BTreeMap<String, (String, i64)>,
    /// By client: the session, and whether its end was announced.
    mappings: BTreeMap<String, (String, bool)>,
    /// By client: milliseconds that are left.
    leases: BTreeMap<String, i64>,
    /// By session id: the client.
    pointers: BTreeMap<String, String>,
    /// By client: when it is looked at.
    due: BTreeMap<String, i64>,
    /// Clients and sessions.
    tombstones: Vec<(String, String)>,
    /// Keys that stay for ever.
    eternal: Vec<String>,
}

impl Keyspace {
    /// Looks at a server; `None` if it is away.
    pub fn of(redis: &Redis) -> Option<Self> {
        let text = redis.ask(&["EVAL", SNAPSHOT, "0", PREFIX])?;
        text.starts_with("now ").then(|| Self::read(&text))
    }

    fn read(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<f64>().map_or(0, |number| number as i64);
            let [kind, name, what] = [0, 1, 2].map(|at| words.get(at).copied().unwrap_or(""));
            if words.len() > 3 && words[3] == "-1" {
                all.eternal.push(format!("{kind} {name}"));
            }
            let (name, what) = (name.to_owned(), what.to_owned());
            match kind {
                "record" => drop(all.records.insert(name, (what, number(4)))),
                "mapping" => drop(all.mappings.insert(name, (what, words[4] == "ended"))),
                "lease" => drop(all.leases.insert(name, number(3))),
                "pointer" => drop(all.pointers.insert(name, what)),
                "due" => drop(all.due.insert(name, number(2))),
                "tombstone" => all.tombstones.push((name, what)),
                _ => {}
            }
        }
        all
    }

    /// Clients whose lease is held.
    pub fn leases(&self) -> impl Iterator<Item = &str> {
        self.leases.keys().map(String::as_str)
    }

    /// What must not be, at any moment: `lease` is how long one lasts, in milliseconds.
    pub fn problems(&self, lease: i64) -> Vec<String> {
        let mut found: Vec<_> =
            self.eternal.iter().map(|key| format!("no time to live: {key}")).collect();
        for (client, left) in &self.leases {
            if *left > lease + ROUNDING {
                found.push(format!("a lease of {client} lasts {left} ms"));
            }
        }
        for (client, (session, ends)) in &self.records {
            match self.mappings.get(client) {
                Some((mapped, false)) if mapped == session => {}
                other => {
                    found.push(format!("{client} has {session}, and its mapping says {other:?}"));
                }
            }
            // Behind the generation, in hexadecimal.
            let id = session.get(14..).unwrap_or_default();
            let pointer = self.pointers.get(id);
            if pointer != Some(client) {
                found.push(format!("{client} has {session}, and its pointer leads to {pointer:?}"));
            }
            match self.due.get(client) {
                Some(due) if *due <= ends + 1 => {}
                due => found.push(format!("{client} ends at {ends}, and is due at {due:?}")),
            }
        }
        for (client, (session, announced)) in &self.mappings {
            let over = (client.clone(), session.clone());
            let awaited = self.records.contains_key(client)
                || self.due.contains_key(client)
                || self.tombstones.contains(&over);
            if !announced && !awaited {
                found.push(format!("the end of {client}'s {session} is announced by nobody"));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "now 1000\n\
        record a 00000000000001one 500 1500\n\
        mapping a 00000000000001one 3000 open\n\
        pointer one a 2000\n\
        lease a - 900\n\
        due a 1501 4000\n\
        due b 900 4000\n\
        mapping b 00000000000002two 3000 open\n\
        mapping c 00000000000003three 3000 ended\n\
        mapping d 00000000000004four 3000 open\n\
        tombstone d 00000000000004four 3000\n\
        other t:{nodes}:h - 15000";

    #[test]
    fn a_good_keyspace_has_no_fault() {
        let good = Keyspace::read(GOOD);
        assert_eq!(good.problems(1000), Vec::<String>::new());
        assert_eq!(good.leases().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        for (from, to, named) in [
            ("other t:{nodes}:h - 15000", "other t:{nodes}:h - -1", "no time to live"),
            ("lease a - 900", "lease a - 1900", "lasts 1900 ms"),
            ("mapping a 00000000000001one", "mapping a 00000000000009one", "its mapping says"),
            ("one 3000 open", "one 3000 ended", "its mapping says"),
            ("pointer one a", "pointer one b", "its pointer leads to"),
            ("pointer one a 2000\n", "", "its pointer leads to None"),
            ("due a 1501 4000\n", "", "is due at None"),
            ("due a 1501", "due a 1600", "is due at Some(1600)"),
            ("due b 900 4000\n", "", "announced by nobody"),
            ("tombstone d 00000000000004four 3000\n", "", "announced by nobody"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let found = Keyspace::read(&GOOD.replace(from, to)).problems(1000);
            assert!(found.len() == 1 && found[0].contains(named), "{from} -> {to}: {found:?}");
        }
    }
}
