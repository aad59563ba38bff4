{{/* The chart's name, as labels have it. */}}
{{- define "postern-agent.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of most objects: that of the release, unless an override says otherwise. */}}
{{- define "postern-agent.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if or (not .Values.nameOverride) (contains .Values.nameOverride .Release.Name) }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "postern-agent.releaseLabels" -}}
app.kubernetes.io/name: {{ include "postern-agent.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* What selects the agent's pods, and not those of `helm test`. */}}
{{- define "postern-agent.selectorLabels" -}}
{{ include "postern-agent.releaseLabels" . }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "postern-agent.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "postern-agent.releaseLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | regexFind "^[^@]*" | trunc 63 | trimAll "-._" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The Job of `helm test`. */}}
{{- define "postern-agent.testName" -}}
{{- include "postern-agent.fullname" . | trunc 58 | trimSuffix "-" }}-test
{{- end }}

{{/* The name of what lies beside the objects of other releases, outside of this one's namespace or in none. */}}
{{- define "postern-agent.farName" -}}
{{- .Release.Namespace }}-{{ include "postern-agent.fullname" . }}
{{- end }}

{{- define "postern-agent.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "postern-agent.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "postern-agent.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* The Secret with the token that the hub knows this cluster by. */}}
{{- define "postern-agent.tokenSecret" -}}
{{- .Values.existingSecret | default (printf "%s-token" (include "postern-agent.fullname" .)) }}
{{- end }}

{{/* Port of the hub as its URL has it. */}}
{{- define "postern-agent.hubPort" -}}
{{- include "postern-agent.portOf" (.Values.serverURL | default "") }}
{{- end }}

{{/* Port of a URL, or what its scheme stands for. */}}
{{- define "postern-agent.portOf" -}}
{{- regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" | default (ternary "443" "80" (regexMatch "^(https|wss):" .)) }}
{{- end }}
