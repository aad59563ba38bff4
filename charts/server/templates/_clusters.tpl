{{/* The clusters file: what the values say of clusters, and nothing that is the chart's alone. */}}
{{- define "postern-server.clusters" -}}
{{- $all := list }}
{{- range .Values.clusters }}
{{- $one := pick . "id" "token" "tokens" "certificates" "impersonate" "targetAddr" "alias" }}
{{- range $key := list "token" "targetAddr" "alias" }}
{{- if not (get $one $key) }}
{{- $_ := unset $one $key }}
{{- end }}
{{- end }}
{{- if and $.Values.certManager.enabled $.Values.certManager.agentCertificates (not $one.certificates) }}
{{- $_ := set $one "certificates" (list (printf "cn:%s" .id)) }}
{{- end }}
{{- if $.Values.argocd.managed }}
{{- $one = merge $one (pick . "labels" "annotations") }}
{{- end }}
{{- $all = append $all $one }}
{{- end }}
{{- toPrettyJson $all }}
{{- end }}
