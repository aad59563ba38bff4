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

{{/* Bytes of a size such as 512Mi, 0.5G, 536870912 or 64MiB; empty where it is none. */}}
{{- define "postern-agent.bytes" -}}
{{- $text := ternary . (toString (int64 .)) (kindIs "string" .) }}
{{- if regexMatch "^[0-9]+([.][0-9]+)?(([KMGT]i)B?|[kMGT])?$" $text }}
{{- $number := regexFind "^[0-9.]+" $text | float64 }}
{{- $unit := regexFind "[A-Za-z]+$" $text | trimSuffix "B" }}
{{- $binary := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $factor := get (merge $binary (dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000)) $unit }}
{{- mulf $number $factor | floor | int64 }}
{{- end }}
{{- end }}

{{/* MiB of the memory limit; empty where there is none. */}}
{{- define "postern-agent.memoryMiB" -}}
{{- $limits := (.Values.resources | default dict).limits | default dict }}
{{- if $limits.memory }}
{{- $bytes := include "postern-agent.bytes" $limits.memory }}
{{- if $bytes }}{{ div (int64 $bytes) 1048576 }}{{ end }}
{{- end }}
{{- end }}

{{/* Budgets that fit into the memory limit: half of it for bytes on their way, the rest for everything else. One tunnel cannot have more than all. */}}
{{- define "postern-agent.budgetArgs" -}}
{{- $memory := include "postern-agent.memoryMiB" . }}
{{- $budget := .Values.processBudget }}
{{- if and (not $budget) $memory }}
{{- $budget = printf "%dMiB" (div (int64 $memory) 2) }}
{{- end }}
{{- if $budget }}
- --process-budget={{ $budget }}
{{- if lt (include "postern-agent.bytes" $budget | int64) 67108864 }}
- --session-budget={{ $budget }}
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
