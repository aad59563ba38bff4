{{/* What each preset allows, as lists of RBAC rules. */}}
{{- define "postern-agent.rules" -}}
{{- $v := .Values }}
{{- if $v.rbac.rules }}
{{- toYaml $v.rbac.rules }}
{{- else if eq $v.rbac.preset "full" }}
- apiGroups: ["*"]
  resources: ["*"]
  verbs: ["*"]
{{- if $v.rbac.clusterWide }}
- nonResourceURLs: ["*"]
  verbs: ["*"]
{{- end }}
{{- else if eq $v.rbac.preset "argocd" }}
# All that Argo CD does with objects, of any kind since it deploys any kind. RBAC itself lets nobody grant what they may not do: so
# what is deployed cannot bind cluster-admin or another role with "*" (rbac.extraRules may allow escalate and bind). It is no wall
# around a Secret or an account: who may create pods acts as any account of their namespace, and so does who may create a token.
- apiGroups: ["*"]
  resources: ["*"]
  verbs: [get, list, watch, create, update, patch, delete, deletecollection]
- nonResourceURLs: ["*"]
  verbs: [get]
{{- else if eq $v.rbac.preset "namespaced" }}
- apiGroups: ["*"]
  resources: ["*"]
  verbs: [get, list, watch, create, update, patch, delete, deletecollection]
{{- else if eq $v.rbac.preset "readonly" }}
# What the role view of Kubernetes leaves out because it belongs to no namespace. No Secrets, here or there.
- apiGroups: [""]
  resources: [namespaces, nodes, persistentvolumes]
  verbs: [get, list, watch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get, list, watch]
- apiGroups: [apiregistration.k8s.io]
  resources: [apiservices]
  verbs: [get, list, watch]
- apiGroups: [admissionregistration.k8s.io, networking.k8s.io, node.k8s.io, scheduling.k8s.io, storage.k8s.io]
  resources: ["*"]
  verbs: [get, list, watch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles, clusterrolebindings, roles, rolebindings]
  verbs: [get, list, watch]
- nonResourceURLs: ["*"]
  verbs: [get]
{{- end }}
{{- with $v.rbac.extraRules }}
{{ toYaml . }}
{{- end }}
{{- end }}
