{{/* What the server would not start with, or would be evicted for. One refusal in each line. */}}
{{- define "postern-server.refusalsOfLimits" -}}
{{- $v := .Values }}
{{- $rule := "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$" }}
{{- /* What a Secret of somebody else says of them is not seen here. */}}
{{- range $i, $cluster := ternary list ($v.clusters | default list) (not (empty $v.existingClustersSecret)) }}
{{- range concat (list $cluster.token) ($cluster.tokens | default list) | compact }}
{{- if and (hasPrefix "sha256:" .) (not (regexMatch "^sha256:[0-9a-fA-F]{64}$" .)) }}
clusters[{{ $i }}].token: behind sha256: stand the 64 hexadecimal digits of the token's SHA-256; `postern-server token` prints both
{{- end }}
{{- end }}
{{- if $cluster.alias }}
{{- if not (regexMatch $rule $cluster.alias) }}
clusters[{{ $i }}].alias: {{ quote $cluster.alias }} is not 1-63 of a-z, 0-9, . and -, alphanumeric at each end
{{- end }}
{{- else if not (regexMatch $rule $cluster.id) }}
clusters[{{ $i }}].id: {{ quote $cluster.id }} is not 1-63 of a-z, 0-9, . and -, alphanumeric at each end: give it an alias for logs and metrics
{{- end }}
{{- end }}
{{- range $i, $caller := $v.callers }}
{{- if not (or $caller.tokens $caller.certificates $caller.networks) }}
callers[{{ $i }}]: has no tokens, certificates or networks by which it could be known
{{- end }}
{{- end }}
{{- if and (has "direct" ($v.trustedProxies | default list)) (gt (len $v.trustedProxies) 1) }}
trustedProxies: direct says that there are none: give it alone, or leave it out
{{- end }}
{{- if and $v.connectionsPerAddress (not $v.trustedProxies) }}
connectionsPerAddress: needs trustedProxies, since every connection may come from a load balancer: name those, or direct
{{- end }}
{{- if and $v.otlp.caSecret (hasPrefix "http://" ($v.otlp.endpoint | default "")) }}
otlp.caSecret: a collector at http:// shows no certificate: write https:// in otlp.endpoint, or leave it empty
{{- end }}
{{- if $v.argocd.managed }}
{{- $skip := include "postern-server.seconds" $v.argocd.skipAfter | int }}
{{- if and (gt $skip 0) (lt $skip (add 120 (include "postern-server.seconds" $v.leave | int) | int)) }}
argocd.skipAfter: {{ $v.argocd.skipAfter }} is less than leave plus 2m, which an agent may need to come back; "0" = never
{{- end }}
{{- if lt (include "postern-server.seconds" $v.argocd.retention | int) 300 }}
argocd.retention: {{ $v.argocd.retention }} is less than 5m, in which a server with an older clusters list may still run
{{- end }}
{{- end }}
{{- if and $v.audit.enabled (not $v.audit.stdout) }}
{{- $max := include "postern-server.bytes" $v.audit.fileMax | int64 }}
{{- if lt $max 65536 }}
audit.fileMax: {{ $v.audit.fileMax }} is less than 64KiB
{{- end }}
{{- if not $v.audit.existingClaim }}
{{- $limit := include "postern-server.bytes" $v.audit.sizeLimit | int64 }}
{{- if eq (int $v.audit.files) 0 }}
audit.files: 0 keeps every file, and the pod is evicted once they reach audit.sizeLimit: set a number, or audit.existingClaim
{{- else if gt (mul $max (add1 (int64 $v.audit.files))) $limit }}
audit.sizeLimit: {{ $v.audit.files }} files of audit.fileMax {{ $v.audit.fileMax }} and the one that is written are more than {{ $v.audit.sizeLimit }}, at which the pod is evicted: raise it, or lower audit.files
{{- end }}
{{- end }}
{{- end }}
{{- end }}
