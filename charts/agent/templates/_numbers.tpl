{{/* Whole seconds of a duration such as 30s or 1m30s, rounded up. */}}
{{- define "postern-agent.seconds" -}}
{{- $total := 0.0 }}
{{- range regexFindAll "[0-9.]+(ms|us|ns|h|m|s)" (toString .) -1 }}
{{- $number := regexFind "^[0-9.]+" . | float64 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $factor := get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 "us" 0.000001 "ns" 0.000000001) $unit }}
{{- $total = addf $total (mulf $number $factor) }}
{{- end }}
{{- ceil $total | int }}
{{- end }}

{{/* MiB of the memory limit; empty where there is none, or none that is a plain number of bytes, Ki, Mi or Gi. */}}
{{- define "postern-agent.memoryMiB" -}}
{{- $limit := (.Values.resources | default dict).limits | default dict | toJson | fromJson }}
{{- $text := $limit.memory | toString }}
{{- $number := regexFind "^[0-9]+" $text | int64 }}
{{- if regexMatch "^[0-9]+Gi?$" $text }}{{ mul $number 1024 }}
{{- else if regexMatch "^[0-9]+Mi?$" $text }}{{ $number }}
{{- else if regexMatch "^[0-9]+Ki$" $text }}{{ div $number 1024 }}
{{- else if regexMatch "^[0-9]{7,}$" $text }}{{ div $number 1048576 }}
{{- end }}
{{- end }}

{{/* Budgets that fit into the memory limit: half of it for bytes on their way, the rest for everything else. */}}
{{- define "postern-agent.budgetArgs" -}}
{{- $memory := include "postern-agent.memoryMiB" . }}
{{- if .Values.processBudget }}
- --process-budget={{ .Values.processBudget }}
{{- else if $memory }}
{{- $half := div (int64 $memory) 2 }}
- --process-budget={{ $half }}MiB
{{- if lt $half 64 }}
- --session-budget={{ $half }}MiB
{{- end }}
{{- end }}
{{- end }}

{{/* Topology spread constraints with the pods' own labels where a selector is missing or empty. */}}
{{- define "postern-agent.spread" -}}
{{- $labels := include "postern-agent.selectorLabels" . | fromYaml }}
{{- $all := list }}
{{- range .Values.topologySpreadConstraints }}
{{- $one := deepCopy . }}
{{- $selector := $one.labelSelector | default dict }}
{{- if not (or $selector.matchLabels $selector.matchExpressions) }}
{{- $_ := set $one "labelSelector" (dict "matchLabels" $labels) }}
{{- end }}
{{- $all = append $all $one }}
{{- end }}
{{- toYaml $all }}
{{- end }}
