//! Field numbers and names of the messages that are decoded, from the Kubernetes API's `generated.proto` files.

/// A message.
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

/// A field of a message.
pub(super) struct Field {
    pub(super) number: u64,
    /// As in JSON.
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) repeated: bool,
    /// Not a pointer in the Go type: always on the wire, and left out of JSON when it is zero.
    pub(super) zero_is_absent: bool,
}

/// What a field holds.
pub(super) enum Shape {
    Text,
    Integer,
    Bool,
    Message(&'static Message),
    Time,
    MicroTime,
    TextMap,
    BytesMap,
}

/// The message of a kind that a client may send.
pub(super) fn of(kind: &str) -> Option<&'static Message> {
    let all = [
        &NAMESPACE,
        &CONFIG_MAP,
        &SECRET,
        &SERVICE_ACCOUNT,
        &EVENT,
        &LEASE,
        &DEPLOYMENT,
        &DELETE_OPTIONS,
        &SELF_SUBJECT_ACCESS_REVIEW,
    ];
    all.into_iter().find(|message| message.name == kind)
}

const fn field(number: u64, name: &'static str, shape: Shape) -> Field {
    Field { number, name, shape, repeated: false, zero_is_absent: true }
}

/// A pointer in the Go type: on the wire only if it is set, zero or not. Parts of an object count too.
const fn pointer(number: u64, name: &'static str, shape: Shape) -> Field {
    Field { number, name, shape, repeated: false, zero_is_absent: false }
}

const fn list(number: u64, name: &'static str, shape: Shape) -> Field {
    Field { number, name, shape, repeated: true, zero_is_absent: false }
}

const fn map(number: u64, name: &'static str) -> Field {
    Field { number, name, shape: Shape::TextMap, repeated: false, zero_is_absent: false }
}

const METADATA: Field = pointer(1, "metadata", Shape::Message(&OBJECT_META));

static OBJECT_META: Message = Message {
    name: "ObjectMeta",
    fields: &[
        field(1, "name", Shape::Text),
        field(2, "generateName", Shape::Text),
        field(3, "namespace", Shape::Text),
        field(5, "uid", Shape::Text),
        field(6, "resourceVersion", Shape::Text),
        field(7, "generation", Shape::Integer),
        pointer(8, "creationTimestamp", Shape::Time),
        pointer(9, "deletionTimestamp", Shape::Time),
        pointer(10, "deletionGracePeriodSeconds", Shape::Integer),
        map(11, "labels"),
        map(12, "annotations"),
        list(13, "ownerReferences", Shape::Message(&OWNER_REFERENCE)),
        list(14, "finalizers", Shape::Text),
    ],
};

static OWNER_REFERENCE: Message = Message {
    name: "OwnerReference",
    fields: &[
        pointer(1, "kind", Shape::Text),
        pointer(3, "name", Shape::Text),
        pointer(4, "uid", Shape::Text),
        pointer(5, "apiVersion", Shape::Text),
        pointer(6, "controller", Shape::Bool),
        pointer(7, "blockOwnerDeletion", Shape::Bool),
    ],
};

static NAMESPACE: Message = Message {
    name: "Namespace",
    fields: &[
        METADATA,
        pointer(2, "spec", Shape::Message(&NAMESPACE_SPEC)),
        pointer(3, "status", Shape::Message(&NAMESPACE_STATUS)),
    ],
};

static NAMESPACE_SPEC: Message = Message { name: "NamespaceSpec", fields: &[list(1, "finalizers", Shape::Text)] };

static NAMESPACE_STATUS: Message = Message { name: "NamespaceStatus", fields: &[field(1, "phase", Shape::Text)] };

static CONFIG_MAP: Message = Message {
    name: "ConfigMap",
    fields: &[METADATA, map(2, "data"), pointer(3, "binaryData", Shape::BytesMap), pointer(4, "immutable", Shape::Bool)],
};

static SECRET: Message = Message {
    name: "Secret",
    fields: &[
        METADATA,
        pointer(2, "data", Shape::BytesMap),
        field(3, "type", Shape::Text),
        map(4, "stringData"),
        pointer(5, "immutable", Shape::Bool),
    ],
};

static SERVICE_ACCOUNT: Message = Message {
    name: "ServiceAccount",
    fields: &[
        METADATA,
        list(2, "secrets", Shape::Message(&OBJECT_REFERENCE)),
        list(3, "imagePullSecrets", Shape::Message(&LOCAL_REFERENCE)),
        pointer(4, "automountServiceAccountToken", Shape::Bool),
    ],
};

static LOCAL_REFERENCE: Message = Message { name: "LocalObjectReference", fields: &[field(1, "name", Shape::Text)] };

static OBJECT_REFERENCE: Message = Message {
    name: "ObjectReference",
    fields: &[
        field(1, "kind", Shape::Text),
        field(2, "namespace", Shape::Text),
        field(3, "name", Shape::Text),
        field(4, "uid", Shape::Text),
        field(5, "apiVersion", Shape::Text),
        field(6, "resourceVersion", Shape::Text),
        field(7, "fieldPath", Shape::Text),
    ],
};

static EVENT: Message = Message {
    name: "Event",
    fields: &[
        METADATA,
        pointer(2, "involvedObject", Shape::Message(&OBJECT_REFERENCE)),
        field(3, "reason", Shape::Text),
        field(4, "message", Shape::Text),
        pointer(5, "source", Shape::Message(&EVENT_SOURCE)),
        pointer(6, "firstTimestamp", Shape::Time),
        pointer(7, "lastTimestamp", Shape::Time),
        field(8, "count", Shape::Integer),
        field(9, "type", Shape::Text),
        pointer(10, "eventTime", Shape::MicroTime),
        field(12, "action", Shape::Text),
        pointer(13, "related", Shape::Message(&OBJECT_REFERENCE)),
        pointer(14, "reportingComponent", Shape::Text),
        pointer(15, "reportingInstance", Shape::Text),
    ],
};

static EVENT_SOURCE: Message =
    Message { name: "EventSource", fields: &[field(1, "component", Shape::Text), field(2, "host", Shape::Text)] };

static LEASE: Message = Message { name: "Lease", fields: &[METADATA, pointer(2, "spec", Shape::Message(&LEASE_SPEC))] };

static LEASE_SPEC: Message = Message {
    name: "LeaseSpec",
    fields: &[
        pointer(1, "holderIdentity", Shape::Text),
        pointer(2, "leaseDurationSeconds", Shape::Integer),
        pointer(3, "acquireTime", Shape::MicroTime),
        pointer(4, "renewTime", Shape::MicroTime),
        pointer(5, "leaseTransitions", Shape::Integer),
    ],
};

static DEPLOYMENT: Message = Message {
    name: "Deployment",
    // The status of a new Deployment is the server's to say: an empty one is skipped, any other is refused.
    fields: &[
        METADATA,
        pointer(2, "spec", Shape::Message(&DEPLOYMENT_SPEC)),
        pointer(3, "status", Shape::Message(&DEPLOYMENT_STATUS)),
    ],
};

static DEPLOYMENT_SPEC: Message = Message {
    name: "DeploymentSpec",
    fields: &[
        pointer(1, "replicas", Shape::Integer),
        pointer(2, "selector", Shape::Message(&LABEL_SELECTOR)),
        pointer(3, "template", Shape::Message(&POD_TEMPLATE)),
        pointer(4, "strategy", Shape::Message(&STRATEGY)),
        field(5, "minReadySeconds", Shape::Integer),
        pointer(6, "revisionHistoryLimit", Shape::Integer),
        field(7, "paused", Shape::Bool),
        pointer(9, "progressDeadlineSeconds", Shape::Integer),
    ],
};

static DEPLOYMENT_STATUS: Message = Message { name: "DeploymentStatus", fields: &[] };

static STRATEGY: Message = Message { name: "DeploymentStrategy", fields: &[field(1, "type", Shape::Text)] };

static LABEL_SELECTOR: Message = Message { name: "LabelSelector", fields: &[map(1, "matchLabels")] };

static POD_TEMPLATE: Message =
    Message { name: "PodTemplateSpec", fields: &[METADATA, pointer(2, "spec", Shape::Message(&POD_SPEC))] };

static POD_SPEC: Message = Message {
    name: "PodSpec",
    fields: &[
        list(2, "containers", Shape::Message(&CONTAINER)),
        field(3, "restartPolicy", Shape::Text),
        pointer(4, "terminationGracePeriodSeconds", Shape::Integer),
        map(7, "nodeSelector"),
        field(8, "serviceAccountName", Shape::Text),
    ],
};

static CONTAINER: Message = Message {
    name: "Container",
    fields: &[
        pointer(1, "name", Shape::Text),
        field(2, "image", Shape::Text),
        list(3, "command", Shape::Text),
        list(4, "args", Shape::Text),
        list(6, "ports", Shape::Message(&CONTAINER_PORT)),
        pointer(8, "resources", Shape::Message(&RESOURCES)),
    ],
};

static CONTAINER_PORT: Message = Message {
    name: "ContainerPort",
    fields: &[
        field(1, "name", Shape::Text),
        field(2, "hostPort", Shape::Integer),
        pointer(3, "containerPort", Shape::Integer),
        field(4, "protocol", Shape::Text),
        field(5, "hostIP", Shape::Text),
    ],
};

static RESOURCES: Message = Message { name: "ResourceRequirements", fields: &[] };

static DELETE_OPTIONS: Message = Message {
    name: "DeleteOptions",
    fields: &[
        pointer(1, "gracePeriodSeconds", Shape::Integer),
        pointer(2, "preconditions", Shape::Message(&PRECONDITIONS)),
        pointer(3, "orphanDependents", Shape::Bool),
        pointer(4, "propagationPolicy", Shape::Text),
        list(5, "dryRun", Shape::Text),
    ],
};

static PRECONDITIONS: Message =
    Message { name: "Preconditions", fields: &[pointer(1, "uid", Shape::Text), pointer(2, "resourceVersion", Shape::Text)] };

static SELF_SUBJECT_ACCESS_REVIEW: Message = Message {
    name: "SelfSubjectAccessReview",
    fields: &[METADATA, pointer(2, "spec", Shape::Message(&REVIEW_SPEC)), pointer(3, "status", Shape::Message(&REVIEW_STATUS))],
};

static REVIEW_STATUS: Message = Message { name: "SubjectAccessReviewStatus", fields: &[] };

static REVIEW_SPEC: Message = Message {
    name: "SelfSubjectAccessReviewSpec",
    fields: &[
        pointer(1, "resourceAttributes", Shape::Message(&RESOURCE_ATTRIBUTES)),
        pointer(2, "nonResourceAttributes", Shape::Message(&NON_RESOURCE_ATTRIBUTES)),
    ],
};

static RESOURCE_ATTRIBUTES: Message = Message {
    name: "ResourceAttributes",
    fields: &[
        field(1, "namespace", Shape::Text),
        field(2, "verb", Shape::Text),
        field(3, "group", Shape::Text),
        field(4, "version", Shape::Text),
        field(5, "resource", Shape::Text),
        field(6, "subresource", Shape::Text),
        field(7, "name", Shape::Text),
    ],
};

static NON_RESOURCE_ATTRIBUTES: Message =
    Message { name: "NonResourceAttributes", fields: &[field(1, "path", Shape::Text), field(2, "verb", Shape::Text)] };
