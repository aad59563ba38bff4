//! `kubectl port-forward`: two channels for each port, data and errors, whose first messages name the port.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Channels;

/// Ports of a pod, as if they were here.
pub struct PortForward {
    channels: Channels,
    ports: Vec<u16>,
    /// Channels that have named their port.
    named: BTreeMap<u8, u16>,
}

/// Something that came from a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarded {
    /// Bytes of what listens there.
    Data(u16, Bytes),
    /// Why there is no more to come.
    Error(u16, String),
}

impl PortForward {
    pub(super) fn new(channels: Channels, ports: &[u16]) -> Self {
        Self { channels, ports: ports.to_vec(), named: BTreeMap::new() }
    }

    /// Sends to a port.
    pub async fn write(&mut self, port: u16, bytes: &[u8]) -> anyhow::Result<()> {
        let n = self.ports.iter().position(|one| *one == port);
        let n = n.ok_or_else(|| anyhow::anyhow!("port {port} is not forwarded"))?;
        self.channels.write(2 * u8::try_from(n)?, bytes).await
    }

    /// What comes next; nothing after the other side's close.
    ///
    /// # Errors
    /// The connection broke, or a channel named another port than it should.
    pub async fn read(&mut self) -> anyhow::Result<Option<Forwarded>> {
        while let Some((channel, bytes)) = self.channels.read().await? {
            let Some(port) = self.ports.get(usize::from(channel / 2)).copied() else {
                anyhow::bail!("channel {channel} belongs to no port");
            };
            if self.named.insert(channel, port).is_none() {
                anyhow::ensure!(*bytes == port.to_le_bytes(), "channel {channel} of port {port} began with {bytes:?}");
                continue;
            }
            return Ok(Some(match channel % 2 {
                0 => Forwarded::Data(port, bytes),
                _ => Forwarded::Error(port, String::from_utf8_lossy(&bytes).into_owned()),
            }));
        }
        Ok(None)
    }

    /// Ends it from this side.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.channels.close().await
    }
}
