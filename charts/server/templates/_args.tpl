{{/* The server's command line. */}}
{{- define "postern-server.args" -}}
{{- $v := .Values -}}
- --addr=:{{ int $v.port }}
- --internal-addr=:{{ int $v.internalPort }}
{{- if $v.opsPort }}
- --ops-addr=:{{ int $v.opsPort }}
{{- end }}
- --clusters=/config/clusters.json
- --log-level={{ $v.logLevel }}
- --leave={{ $v.leave }}
- --drain={{ $v.drain }}
{{- if include "postern-server.certSecret" . }}
- --tls-cert=/tls/tls.crt
- --tls-key=/tls/tls.key
{{- end }}
{{- if include "postern-server.clientCASecret" . }}
- --tls-client-ca=/tls-client-ca/ca.crt
{{- end }}
{{- if include "postern-server.asksCerts" . }}
- --revoked-certs=/revoked/revoked-certs
{{- end }}
{{- if $v.internalTls.certSecret }}
- --internal-tls-cert=/internal-tls/tls.crt
- --internal-tls-key=/internal-tls/tls.key
{{- end }}
{{- if $v.internalTls.clientCASecret }}
- --internal-tls-client-ca=/internal-tls-client-ca/ca.crt
{{- else if and $v.internalTls.certSecret (include "postern-server.clientCASecret" .) }}
- --internal-tls-client-ca=/tls-client-ca/ca.crt
{{- end }}
{{- $mode := include "postern-server.internalMode" . }}
{{- if ne $mode "optional" }}
- --internal-tls={{ $mode }}
{{- end }}
{{- if include "postern-server.callersSecret" . }}
- --callers=/callers/callers.yaml
{{- end }}
{{- if $v.rateLimit }}
- --rate-limit={{ int64 $v.rateLimit }}
{{- end }}
{{- if $v.clusterRateLimit }}
- --cluster-rate-limit={{ int64 $v.clusterRateLimit }}
{{- end }}
{{- if $v.callerRateLimit }}
- --caller-rate-limit={{ int64 $v.callerRateLimit }}
{{- end }}
{{- if $v.trustedProxies }}
- --trusted-proxies={{ join "," $v.trustedProxies }}
{{- end }}
{{- if $v.connectionsPerAddress }}
- --connections-per-address={{ int $v.connectionsPerAddress }}
{{- end }}
{{- include "postern-server.budgetArgs" . }}
{{- if $v.audit.enabled }}
- --audit={{ ternary "-" "/audit/audit.jsonl" $v.audit.stdout }}
{{- if $v.audit.keySecret }}
- --audit-key=/audit-key/key
{{- end }}
{{- if not $v.audit.stdout }}
- --audit-file-max={{ $v.audit.fileMax }}
- --audit-files={{ int $v.audit.files }}
{{- end }}
- --audit-unwritable={{ $v.audit.unwritable }}
{{- end }}
{{- if $v.otlp.endpoint }}
- --otlp-endpoint={{ $v.otlp.endpoint }}
- --trace-sample={{ toJson $v.otlp.sample }}
{{- if $v.otlp.caSecret }}
- --otlp-ca-cert=/otlp-ca/ca.crt
{{- end }}
{{- end }}
{{- if $v.argocd.managed }}
- --argocd-namespace={{ $v.argocd.namespace }}
- --argocd-hub={{ .Release.Namespace }}/{{ include "postern-server.fullname" . }}
- --argocd-url={{ include "postern-server.internalURL" . }}
{{- if include "postern-server.argocdCASecret" . }}
- --argocd-ca-cert=/argocd-ca/ca.crt
{{- end }}
{{- if include "postern-server.argocdCertSecret" . }}
- --argocd-client-cert=/argocd-client/tls.crt
- --argocd-client-key=/argocd-client/tls.key
{{- end }}
{{- if $v.argocd.tokenSecret }}
- --argocd-token-file=/argocd-token/token
{{- end }}
- --argocd-skip-after={{ $v.argocd.skipAfter }}
- --argocd-return-spread={{ $v.argocd.returnSpread }}
- --argocd-retention={{ $v.argocd.retention }}
{{- end }}
{{- range $v.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
