//! What Redis counts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::Result;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RedisInfo {
    /// Commands that ran, those inside scripts included.
    pub(crate) commands: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) scripts: u64,
    pub(crate) script_micros: u64,
}

impl RedisInfo {
    pub(crate) fn read(port: u16) -> Result<Self> {
        let stats = info(port, "stats")?;
        let commands = info(port, "commandstats")?;
        let evalsha = line(&commands, "cmdstat_evalsha:").unwrap_or_default();
        let part = |name: &str| -> u64 {
            let value = evalsha.split(',').find_map(|part| part.strip_prefix(name));
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            commands: number(&stats, "total_commands_processed:")?,
            bytes_in: number(&stats, "total_net_input_bytes:")?,
            bytes_out: number(&stats, "total_net_output_bytes:")?,
            scripts: part("calls="),
            script_micros: part("usec="),
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            commands: self.commands - before.commands,
            bytes_in: self.bytes_in - before.bytes_in,
            bytes_out: self.bytes_out - before.bytes_out,
            scripts: self.scripts - before.scripts,
            script_micros: self.script_micros - before.script_micros,
        }
    }

    /// The server's process.
    pub(crate) fn pid(port: u16) -> Result<u32> {
        Ok(u32::try_from(number(&info(port, "server")?, "process_id:")?)?)
    }

    pub(crate) fn version(port: u16) -> Result<String> {
        let server = info(port, "server")?;
        Ok(line(&server, "redis_version:").unwrap_or("unknown").into())
    }
}

fn info(port: u16, section: &str) -> Result<String> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    (&stream).write_all(format!("INFO {section}\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    reader.read_line(&mut head)?;
    let length = head.trim_end().strip_prefix('$').ok_or_else(|| format!("INFO: {head}"))?;
    let mut text = vec![0; length.parse()?];
    reader.read_exact(&mut text)?;
    Ok(String::from_utf8(text)?)
}

fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name))
}

fn number(info: &str, name: &str) -> Result<u64> {
    Ok(line(info, name).ok_or_else(|| format!("INFO has no {name}"))?.parse()?)
}
