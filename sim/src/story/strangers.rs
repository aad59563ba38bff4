//! Strangers: who knows the hub's address and says what no program of ours would.

use anyhow::Context;
use host::Connection;

use super::Story;

impl Story {
    /// A connection from a machine to a port of the hub, for bytes of one's own.
    pub async fn stranger(&self, machine: &str, port: u16) -> anyhow::Result<Connection> {
        self.stage().caller(machine).dial("hub", port).await.with_context(|| format!("{machine} cannot dial the hub"))
    }
}
