//! The kinds that the fake serves: one table, a new kind is a row.

use std::sync::LazyLock;

/// One kind of object.
#[derive(Debug)]
pub(crate) struct Kind {
    /// API group; empty for the core.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    /// The name in paths; unique among all rows, so it names the kind everywhere in this crate.
    pub(crate) plural: &'static str,
    pub(crate) short: &'static [&'static str],
    pub(crate) namespaced: bool,
    /// Whether `kubectl get all` shows it.
    pub(crate) in_all: bool,
    pub(crate) subresources: &'static [Subresource],
    /// Field selectors beyond `metadata.name` and `metadata.namespace`.
    pub(crate) fields: &'static [&'static str],
    /// What `kubectl get` shows between NAME and AGE.
    pub(crate) columns: &'static [Column],
    /// Whether an update may leave out `metadata.resourceVersion`.
    pub(crate) unconditional_update: bool,
    /// Whether a PUT creates what is not there.
    pub(crate) create_by_update: bool,
    /// Whether a change of `spec` counts up `metadata.generation`.
    pub(crate) generations: bool,
}

/// A part of an object with a path of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subresource {
    Status,
    Scale,
    Log,
    Exec,
    Attach,
    PortForward,
}

/// One column of a table.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) cell: Cell,
    /// 0 is always shown, 1 with `-o wide`.
    pub(crate) priority: u8,
}

/// Where a column's content comes from; the texts are JSON pointers.
#[derive(Debug)]
pub(crate) enum Cell {
    Text(&'static str),
    Number(&'static str),
    /// How many entries a map or list has.
    Count(&'static str),
    /// `a/b` of two numbers.
    Ratio(&'static str, &'static str),
    /// Ready containers of all containers.
    PodReady,
    /// The phase, or Terminating.
    PodPhase,
    /// Restarts of all containers.
    PodRestarts,
    /// Ready or NotReady.
    NodeReady,
    /// `80/TCP,443/TCP`.
    Ports,
}

impl Kind {
    /// `pods`, `deployments.apps`.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pod`, `deployment`.
    pub(crate) fn singular(&self) -> String {
        self.kind.to_ascii_lowercase()
    }

    pub(crate) fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }
}

impl Subresource {
    /// The last segment of its path.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
        }
    }
}

/// The kind with this plural in any group.
pub(crate) fn by_plural(plural: &str) -> Option<&'static Kind> {
    KINDS.iter().chain(extra(EXTRA_MAX)).find(|kind| kind.plural == plural)
}

/// The first `n` of the kinds that stand for custom resources.
pub(crate) fn extra(n: usize) -> &'static [Kind] {
    // Names live as long as the process, like those in the table.
    static EXTRA: LazyLock<Vec<Kind>> = LazyLock::new(|| {
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let kind =
            |n: usize| Kind { group: EXTRA_GROUP, kind: leak(format!("Widget{n}")), plural: leak(format!("widgets{n}")), ..CORE };
        (0..EXTRA_MAX).map(kind).collect()
    });
    &EXTRA[..n.min(EXTRA_MAX)]
}

/// The group of the kinds that stand for custom resources.
pub(crate) const EXTRA_GROUP: &str = "widgets.example.com";

/// As many as a cluster with many operators has.
const EXTRA_MAX: usize = 200;

/// The kind with this plural in one group and version.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    by_plural(plural).filter(|kind| kind.group == group && kind.version == version)
}

const fn column(name: &'static str, cell: Cell) -> Column {
    Column { name, cell, priority: 0 }
}

const fn wide(name: &'static str, cell: Cell) -> Column {
    Column { name, cell, priority: 1 }
}

/// A namespaced core kind without anything special.
const CORE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    short: &[],
    namespaced: true,
    in_all: false,
    subresources: &[],
    fields: &[],
    columns: &[],
    unconditional_update: true,
    create_by_update: false,
    generations: false,
};

/// Every kind, in the order of discovery.
pub(crate) static KINDS: &[Kind] = &[
    Kind {
        kind: "Namespace",
        plural: "namespaces",
        short: &["ns"],
        namespaced: false,
        subresources: &[Subresource::Status],
        fields: &["status.phase"],
        columns: &[column("Status", Cell::Text("/status/phase"))],
        ..CORE
    },
    Kind {
        kind: "Node",
        plural: "nodes",
        short: &["no"],
        namespaced: false,
        subresources: &[Subresource::Status],
        columns: &[column("Status", Cell::NodeReady), column("Version", Cell::Text("/status/nodeInfo/kubeletVersion"))],
        ..CORE
    },
    Kind {
        kind: "Pod",
        plural: "pods",
        short: &["po"],
        in_all: true,
        subresources: &[Subresource::Status, Subresource::Log, Subresource::Exec, Subresource::Attach, Subresource::PortForward],
        fields: &["spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP"],
        columns: &[
            column("Ready", Cell::PodReady),
            column("Status", Cell::PodPhase),
            column("Restarts", Cell::PodRestarts),
            wide("IP", Cell::Text("/status/podIP")),
            wide("Node", Cell::Text("/spec/nodeName")),
        ],
        ..CORE
    },
    Kind { kind: "ConfigMap", plural: "configmaps", short: &["cm"], columns: &[column("Data", Cell::Count("/data"))], ..CORE },
    Kind {
        kind: "Secret",
        plural: "secrets",
        fields: &["type"],
        columns: &[column("Type", Cell::Text("/type")), column("Data", Cell::Count("/data"))],
        ..CORE
    },
    Kind {
        kind: "Service",
        plural: "services",
        short: &["svc"],
        in_all: true,
        subresources: &[Subresource::Status],
        columns: &[
            column("Type", Cell::Text("/spec/type")),
            column("Cluster-IP", Cell::Text("/spec/clusterIP")),
            column("Port(s)", Cell::Ports),
        ],
        ..CORE
    },
    Kind { kind: "ServiceAccount", plural: "serviceaccounts", short: &["sa"], ..CORE },
    Kind {
        kind: "Event",
        plural: "events",
        short: &["ev"],
        fields: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "type",
        ],
        columns: &[
            column("Type", Cell::Text("/type")),
            column("Reason", Cell::Text("/reason")),
            column("Object", Cell::Text("/involvedObject/name")),
            column("Message", Cell::Text("/message")),
        ],
        create_by_update: true,
        ..CORE
    },
    Kind {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        short: &["deploy"],
        in_all: true,
        subresources: &[Subresource::Status, Subresource::Scale],
        columns: &[
            column("Ready", Cell::Ratio("/status/readyReplicas", "/spec/replicas")),
            column("Up-to-date", Cell::Number("/status/updatedReplicas")),
            column("Available", Cell::Number("/status/availableReplicas")),
        ],
        generations: true,
        ..CORE
    },
    Kind {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        short: &["rs"],
        in_all: true,
        subresources: &[Subresource::Status, Subresource::Scale],
        columns: &[
            column("Desired", Cell::Number("/spec/replicas")),
            column("Current", Cell::Number("/status/replicas")),
            column("Ready", Cell::Number("/status/readyReplicas")),
        ],
        generations: true,
        ..CORE
    },
    Kind {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        columns: &[column("Holder", Cell::Text("/spec/holderIdentity"))],
        unconditional_update: false,
        create_by_update: true,
        ..CORE
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plural_names_one_kind_only() {
        for kind in KINDS {
            assert_eq!(KINDS.iter().filter(|other| other.plural == kind.plural).count(), 1, "{}", kind.plural);
        }
    }
}
