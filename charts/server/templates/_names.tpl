{{/* The chart's name, as labels have it. */}}
{{- define "postern-server.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of most objects: that of the release, unless an override says otherwise. A Service has 63 letters, -internal too. */}}
{{- define "postern-server.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" }}
{{- else if or (not .Values.nameOverride) (contains .Values.nameOverride .Release.Name) }}
{{- .Release.Name | trunc 54 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Values.nameOverride | trunc 54 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "postern-server.releaseLabels" -}}
app.kubernetes.io/name: {{ include "postern-server.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* What selects the server's pods, and not those of `helm test`. */}}
{{- define "postern-server.selectorLabels" -}}
{{ include "postern-server.releaseLabels" . }}
app.kubernetes.io/component: server
{{- end }}

{{- define "postern-server.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "postern-server.releaseLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | regexFind "^[^@]*" | trunc 63 | trimAll "-._" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "postern-server.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "postern-server.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "postern-server.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* Secrets, by their names: those of the values, else those that cert-manager fills for this chart. Empty = none. */}}
{{- define "postern-server.certSecret" -}}
{{- if .Values.certManager.enabled }}
{{- printf "%s-tls" (include "postern-server.fullname" .) }}
{{- else if .Values.tls.enabled }}
{{- .Values.tls.certSecret }}
{{- end }}
{{- end }}

{{- define "postern-server.clientCASecret" -}}
{{- if include "postern-server.certSecret" . }}
{{- if .Values.tls.clientCASecret }}
{{- .Values.tls.clientCASecret }}
{{- else if and .Values.certManager.enabled .Values.certManager.clientAuth }}
{{- /* The server's own certificate comes with the CA that signed it and agents' ones; the CA's key stays where it is. */}}
{{- include "postern-server.certSecret" . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Not empty where the internal port asks for certificates: the CA's Secret. Without callers nobody enters without one. */}}
{{- define "postern-server.internalCASecret" -}}
{{- if include "postern-server.internalTls" . }}
{{- .Values.internalTls.clientCASecret | default (include "postern-server.clientCASecret" .) }}
{{- end }}
{{- end }}

{{/* Not empty where any port asks for certificates. */}}
{{- define "postern-server.asksCerts" -}}
{{- include "postern-server.clientCASecret" . }}{{ include "postern-server.internalCASecret" . }}
{{- end }}

{{/* Not empty where cert-manager makes the certificate that Argo CD shows: by the values' word, or where it cannot enter otherwise. */}}
{{- define "postern-server.makesArgocdCert" -}}
{{- $c := .Values.certManager }}
{{- if and $c.enabled (not .Values.argocd.clientCertSecret) }}
{{- if ne (toString $c.argocdCertificate) "auto" }}
{{- if $c.argocdCertificate }}yes{{ end }}
{{- else if and .Values.argocd.managed (not .Values.argocd.tokenSecret) (include "postern-server.argocdTls" .) }}
{{- /* No other CA than that of this release's certificates may be the one that is asked for. */}}
{{- if and (eq (include "postern-server.internalCASecret" .) (include "postern-server.certSecret" .)) (include "postern-server.certSecret" .) }}yes{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "postern-server.argocdCertSecret" -}}
{{- if .Values.argocd.clientCertSecret }}
{{- .Values.argocd.clientCertSecret }}
{{- else if include "postern-server.makesArgocdCert" . }}
{{- printf "%s-argocd-tls" (include "postern-server.fullname" .) }}
{{- end }}
{{- end }}

{{/* The CA by which Argo CD knows the internal listener, where this chart knows it: that of cert-manager's certificate, if that one is shown and has its name. */}}
{{- define "postern-server.argocdCASecret" -}}
{{- if .Values.argocd.caSecret }}
{{- .Values.argocd.caSecret }}
{{- else if and .Values.certManager.enabled (include "postern-server.argocdTls" .) (not .Values.internalTls.certSecret) }}
{{- if or (not .Values.certManager.issuerRef) .Values.certManager.internalNames }}
{{- include "postern-server.certSecret" . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "postern-server.clustersSecret" -}}
{{- .Values.existingClustersSecret | default (printf "%s-clusters" (include "postern-server.fullname" .)) }}
{{- end }}

{{- define "postern-server.callersSecret" -}}
{{- if .Values.existingCallersSecret }}
{{- .Values.existingCallersSecret }}
{{- else if .Values.callers }}
{{- printf "%s-callers" (include "postern-server.fullname" .) }}
{{- end }}
{{- end }}

{{/* The mode of the internal listener; `off` without quotes is the YAML of false. */}}
{{- define "postern-server.internalMode" -}}
{{- ternary "off" .Values.internalTls.mode (eq (toString .Values.internalTls.mode) "false") }}
{{- end }}

{{/* Not empty where the internal listener speaks TLS. */}}
{{- define "postern-server.internalTls" -}}
{{- if and (ne (include "postern-server.internalMode" .) "off") (or (include "postern-server.certSecret" .) .Values.internalTls.certSecret) }}on{{ end }}
{{- end }}

{{/* The internal listener as it is reached from other pods. */}}
{{- define "postern-server.internalURL" -}}
{{- if .Values.argocd.url }}
{{- .Values.argocd.url | trimSuffix "/" }}
{{- else }}
{{- $scheme := ternary "https" "http" (not (empty (include "postern-server.internalTls" .))) }}
{{- printf "%s://%s-internal.%s.svc:%d" $scheme (include "postern-server.fullname" .) .Release.Namespace (int .Values.service.internalPort) }}
{{- end }}
{{- end }}

{{/* Not empty where Argo CD reaches the internal listener by TLS, which the URL says. */}}
{{- define "postern-server.argocdTls" -}}
{{- if hasPrefix "https://" (include "postern-server.internalURL" .) }}on{{ end }}
{{- end }}

{{/* The name of the port that answers for health and metrics. */}}
{{- define "postern-server.healthPort" -}}
{{- if .Values.opsPort }}ops{{ else }}internal{{ end }}
{{- end }}

{{/* The Job of `helm test`. */}}
{{- define "postern-server.testName" -}}
{{- include "postern-server.fullname" . }}-test
{{- end }}

{{/* The name of what lies beside the objects of other releases, outside of this one's namespace or in none. */}}
{{- define "postern-server.farName" -}}
{{- .Release.Namespace }}-{{ include "postern-server.fullname" . }}
{{- end }}

{{/* As whom a pod runs. OpenShift gives each namespace users of its own, and takes no other. */}}
{{- define "postern-server.podSecurity" -}}
runAsNonRoot: true
{{- if not (.Capabilities.APIVersions.Has "security.openshift.io/v1") }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}
