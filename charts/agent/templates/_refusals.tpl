{{/* Values that cannot work together, each with its key, the reason and what to do. All at once. */}}
{{- define "postern-agent.refusals" -}}
{{- $no := list }}
{{- $v := .Values }}
{{- if not $v.serverURL }}
{{- $no = append $no "serverURL: is needed: the hub's WebSocket URL, for instance wss://hub.example.com/connect" }}
{{- else if not (regexMatch "^wss?://[^/]+" $v.serverURL) }}
{{- $no = append $no (printf "serverURL: %q is no WebSocket URL: it begins with wss://, for instance wss://hub.example.com/connect" $v.serverURL) }}
{{- else if and (hasPrefix "ws://" $v.serverURL) (not $v.allowInsecureServer) (not (has "--allow-insecure-server" $v.extraArgs)) (not (has "-allow-insecure-server" $v.extraArgs)) }}
{{- $no = append $no "serverURL: ws:// shows the token and all traffic to the network: write wss://, or allow it with allowInsecureServer" }}
{{- end }}
{{- if not (or $v.token $v.existingSecret) }}
{{- $no = append $no "token: is needed: what the hub's clusters list has for this cluster; or name a Secret with the key token in existingSecret" }}
{{- end }}
{{- if not $v.healthPort }}
{{- $no = append $no "healthPort: is needed, since the kubelet asks there whether the agent is well" }}
{{- end }}
{{- $rules := $v.rbac.rules | default list }}
{{- if $v.rbac.create }}
{{- if and (eq $v.rbac.preset "custom") (not $rules) }}
{{- $no = append $no "rbac.rules: rbac.preset is custom, so say what the hub may do here" }}
{{- end }}
{{- if and (not $v.rbac.clusterWide) (has $v.rbac.preset (list "argocd" "readonly")) (not $rules) }}
{{- $no = append $no (printf "rbac.clusterWide: rbac.preset %s is for a whole cluster; use the preset namespaced, or write rbac.rules" $v.rbac.preset) }}
{{- end }}
{{- if and $v.rbac.namespaces (or $rules (ne $v.rbac.preset "namespaced")) }}
{{- $no = append $no "rbac.namespaces: has an effect with rbac.preset namespaced alone, and without rbac.rules" }}
{{- end }}
{{- if not $v.rbac.clusterWide }}
{{- range $i, $rule := $rules }}
{{- if $rule.nonResourceURLs }}
{{- $no = append $no (printf "rbac.rules[%d].nonResourceURLs: belong to no namespace; leave them out, or set rbac.clusterWide" $i) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if $v.rbac.create }}
{{- if and (not $v.serviceAccount.create) (not $v.serviceAccount.name) }}
{{- $no = append $no "serviceAccount.name: is needed without serviceAccount.create: rbac.create gives the account rights, and whoever runs as default must not have them" }}
{{- end }}
{{- if or (not $v.rbac.clusterWide) (and (eq $v.rbac.preset "namespaced") (not $rules)) }}
{{- range $i, $rule := $v.rbac.extraRules }}
{{- if $rule.nonResourceURLs }}
{{- $no = append $no (printf "rbac.extraRules[%d].nonResourceURLs: belong to no namespace; leave them out, or use rbac.clusterWide and another preset" $i) }}
{{- end }}
{{- end }}
{{- end }}
{{- else if $v.rbac.extraRules }}
{{- $no = append $no "rbac.extraRules: has no effect without rbac.create" }}
{{- end }}
{{- if and $v.otlp.caSecret (hasPrefix "http://" ($v.otlp.endpoint | default "")) }}
{{- $no = append $no "otlp.caSecret: a collector at http:// shows no certificate: write https:// in otlp.endpoint, or leave it empty" }}
{{- end }}
{{- with $v.keepalive }}
{{- $number := regexFind "^[0-9]+" . | int }}
{{- $silent := ternary $number (mul $number 1000) (hasSuffix "ms" .) | int }}
{{- if or (lt $silent 1000) (gt $silent 8000) }}
{{- $no = append $no (printf "keepalive: %s is not 1s to 8s" .) }}
{{- end }}
{{- end }}
{{- if and $v.audit.enabled (not $v.audit.stdout) }}
{{- $max := include "postern-agent.bytes" $v.audit.fileMax | int64 }}
{{- if lt $max 65536 }}
{{- $no = append $no (printf "audit.fileMax: %s is less than 64KiB" $v.audit.fileMax) }}
{{- end }}
{{- if not $v.audit.existingClaim }}
{{- if eq (int $v.audit.files) 0 }}
{{- $no = append $no "audit.files: 0 keeps every file, and the pod is evicted once they reach audit.sizeLimit: set a number, or audit.existingClaim" }}
{{- else if gt (mul $max (add1 (int64 $v.audit.files))) (include "postern-agent.bytes" $v.audit.sizeLimit | int64) }}
{{- $no = append $no (printf "audit.sizeLimit: %d files of audit.fileMax %s and the one that is written are more than %s, at which the pod is evicted: raise it, or lower audit.files" (int $v.audit.files) $v.audit.fileMax $v.audit.sizeLimit) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $v.guard.policy (not $v.guard.enabled) }}
{{- $no = append $no "guard.enabled: guard.policy has no effect without it" }}
{{- end }}
{{- if and (not $v.httpProxy.httpsProxy) (or $v.httpProxy.credentialsSecret $v.httpProxy.caSecret $v.httpProxy.noProxy) }}
{{- $no = append $no "httpProxy.httpsProxy: is needed: the URL of the proxy, for instance http://proxy.example.com:3128" }}
{{- end }}
{{- if and $v.httpProxy.httpsProxy (hasPrefix "ws://" ($v.serverURL | default "")) }}
{{- $no = append $no "httpProxy.httpsProxy: is for a serverURL of wss:// alone: the proxy would read the token and all traffic" }}
{{- end }}
{{- if and $v.audit.stdout $v.audit.existingClaim }}
{{- $no = append $no "audit.existingClaim: audit.stdout writes no file; give one of them" }}
{{- end }}
{{- if and $v.audit.existingClaim (gt (int $v.replicas) 1) }}
{{- $no = append $no "audit.existingClaim: one process at a time writes the audit log, and replicas is more than 1" }}
{{- end }}
{{- if $no }}
{{- fail (printf "\n  %s" (join "\n  " $no)) }}
{{- end }}
{{- end }}
