{{/* Values that cannot work together, each with its key, the reason and what to do. All at once. */}}
{{- define "postern-server.refusals" -}}
{{- $no := list }}
{{- $v := .Values }}
{{- $tls := include "postern-server.certSecret" . }}
{{- if gt (int $v.replicas) 1 }}
{{- $no = append $no (printf "replicas: is %d and must be 1: the sessions of agents live in one process, so a request that reaches another replica would not find its cluster; several replicas are not supported yet" (int $v.replicas)) }}
{{- end }}
{{- if not (or $v.clusters $v.existingClustersSecret) }}
{{- $no = append $no "clusters: name at least one cluster with its id and token, or a Secret with the key clusters.json in existingClustersSecret" }}
{{- end }}
{{- $ids := list }}
{{- $tokens := list }}
{{- range $i, $cluster := $v.clusters }}
{{- if has $cluster.id $ids }}
{{- $no = append $no (printf "clusters[%d].id: %q is there already" $i $cluster.id) }}
{{- end }}
{{- $ids = append $ids $cluster.id }}
{{- if not (or $cluster.token $cluster.tokens $v.existingClustersSecret) }}
{{- $no = append $no (printf "clusters[%d].token: is needed; `postern-server token` makes one" $i) }}
{{- end }}
{{- range concat (list $cluster.token) ($cluster.tokens | default list) | compact | uniq }}
{{- if has . $tokens }}
{{- $no = append $no (printf "clusters[%d].token: another cluster has the same, so nobody could tell their agents apart" $i) }}
{{- end }}
{{- $tokens = append $tokens . }}
{{- end }}
{{- if and $cluster.certificates (not (include "postern-server.clientCASecret" $)) }}
{{- $no = append $no (printf "clusters[%d].certificates: nobody is asked for a certificate without tls.enabled and tls.clientCASecret, so no agent of this cluster could enter" $i) }}
{{- end }}
{{- if and $v.argocd.enabled (not $v.argocd.managed) (not (regexMatch "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$" $cluster.id)) }}
{{- $no = append $no (printf "clusters[%d].id: %q cannot be part of a Secret's name; set argocd.enabled to false, or argocd.managed to true" $i $cluster.id) }}
{{- end }}
{{- end }}
{{- if and $v.callers $v.existingCallersSecret }}
{{- $no = append $no "existingCallersSecret: callers says the same; give one of them" }}
{{- end }}
{{- if and $v.tls.enabled (not $tls) }}
{{- $no = append $no "tls.certSecret: tls.enabled needs the name of a Secret with tls.crt and tls.key, or certManager.enabled" }}
{{- end }}
{{- if eq (include "postern-server.internalMode" .) "require" }}
{{- if not (include "postern-server.internalTls" .) }}
{{- $no = append $no "internalTls.mode: require needs a certificate: set tls.enabled and tls.certSecret, or internalTls.certSecret" }}
{{- end }}
{{- if not $v.opsPort }}
{{- $no = append $no "opsPort: internalTls.mode is require, and the kubelet asks for health in plain HTTP: give health and metrics a port of their own, for instance 8082" }}
{{- end }}
{{- end }}
{{- if and $v.internalTls.clientCASecret (not (include "postern-server.internalTls" .)) }}
{{- $no = append $no "internalTls.clientCASecret: callers show certificates by TLS only: set tls.enabled and tls.certSecret, or internalTls.certSecret" }}
{{- end }}
{{- if eq (int $v.port) (int $v.internalPort) }}
{{- $no = append $no "internalPort: is the same as port, which faces the internet" }}
{{- end }}
{{- if and $v.opsPort (or (eq (int $v.opsPort) (int $v.port)) (eq (int $v.opsPort) (int $v.internalPort))) }}
{{- $no = append $no "opsPort: is the same as port or internalPort; 0 serves health and metrics on internalPort" }}
{{- end }}
{{- if and $v.certManager.agentCertificates (not (include "postern-server.clientCASecret" .)) }}
{{- $no = append $no "certManager.agentCertificates: needs certManager.enabled, and certManager.clientAuth or tls.clientCASecret" }}
{{- end }}
{{- if and (eq (toString $v.certManager.argocdCertificate) "true") (not $v.certManager.enabled) }}
{{- $no = append $no "certManager.argocdCertificate: needs certManager.enabled" }}
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}
{{- $no = append $no "ingress.hosts: name at least one host" }}
{{- end }}
{{- if $v.gateway.enabled }}
{{- if and (not $v.gateway.create) (not $v.gateway.parentRefs) }}
{{- $no = append $no "gateway.parentRefs: gateway.create is false, so name the gateway that is there" }}
{{- end }}
{{- if and (eq $v.gateway.tlsMode "Passthrough") (not $tls) }}
{{- $no = append $no "gateway.tlsMode: Passthrough leaves TLS to the server: set tls.enabled and tls.certSecret, or certManager.enabled" }}
{{- end }}
{{- if and (eq $v.gateway.tlsMode "Terminate") (include "postern-server.clientCASecret" .) $v.certManager.agentCertificates }}
{{- $no = append $no "gateway.tlsMode: Terminate hides the agents' certificates, which certManager.agentCertificates asks them for: set Passthrough" }}
{{- end }}
{{- end }}
{{- if and $v.audit.stdout $v.audit.existingClaim }}
{{- $no = append $no "audit.existingClaim: audit.stdout writes no file; give one of them" }}
{{- end }}
{{- range $part := list "Certificates" "Ways" "Limits" }}
{{- $no = concat $no (include (printf "postern-server.refusalsOf%s" $part) $ | splitList "\n" | compact) }}
{{- end }}
{{- if $no }}
{{- fail (printf "\n  %s" (join "\n  " $no)) }}
{{- end }}
{{- end }}
