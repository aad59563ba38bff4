{{/* The agent's command line, and of `postern-agent doctor`, which takes the same. */}}
{{- define "postern-agent.args" -}}
{{- $v := .Values -}}
- --server={{ $v.serverURL }}
- --token-file=/token/token
- --target={{ $v.targetAddr }}
- --ca-cert={{ dir $v.saTokenPath }}/ca.crt
- --sa-token-path={{ $v.saTokenPath }}
- --max-retry={{ $v.maxRetryInterval }}
- --max-conns={{ int $v.maxConcurrentConnections }}
- --health-addr=:{{ int $v.healthPort }}
- --log-level={{ $v.logLevel }}
- --drain={{ $v.drain }}
{{- if $v.insecure }}
- --insecure
{{- end }}
{{- if $v.allowInsecureServer }}
- --allow-insecure-server
{{- end }}
{{- if $v.tls.serverCASecret }}
- --server-ca-cert=/tls-server-ca/ca.crt
{{- end }}
{{- if $v.tls.clientCertSecret }}
- --client-cert=/tls-client/tls.crt
- --client-key=/tls-client/tls.key
{{- end }}
{{- with $v.httpProxy.httpsProxy }}
- --https-proxy={{ . }}
{{- end }}
{{- with $v.httpProxy.noProxy }}
- --no-proxy={{ . }}
{{- end }}
{{- if $v.httpProxy.credentialsSecret }}
- --proxy-credentials=/proxy-credentials/credentials
{{- end }}
{{- if $v.httpProxy.caSecret }}
- --proxy-ca-cert=/proxy-ca/ca.crt
{{- end }}
{{- if ne (toString $v.sessionMaxAge) "0" }}
- --session-max-age={{ $v.sessionMaxAge }}
{{- end }}
{{- with $v.keepalive }}
- --keepalive={{ . }}
{{- end }}
{{- include "postern-agent.budgetArgs" . }}
{{- if $v.guard.enabled }}
- --guard=/guard/guard.yaml
{{- end }}
{{- if $v.otlp.endpoint }}
- --otlp-endpoint={{ $v.otlp.endpoint }}
- --trace-sample={{ toJson $v.otlp.sample }}
{{- if $v.otlp.caSecret }}
- --otlp-ca-cert=/otlp-ca/ca.crt
{{- end }}
{{- end }}
{{- range $v.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/* The same, with what the agent alone writes. */}}
{{- define "postern-agent.ownArgs" -}}
{{- $v := .Values }}
{{- if $v.freeze.enabled }}
- --state-dir=/state
{{- end }}
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
{{- end }}

{{/* Where the files of both lie. */}}
{{- define "postern-agent.mounts" -}}
{{- $v := .Values -}}
- name: token
  mountPath: /token
  readOnly: true
- name: service-account
  mountPath: {{ dir $v.saTokenPath | quote }}
  readOnly: true
{{- if $v.tls.serverCASecret }}
- name: tls-server-ca
  mountPath: /tls-server-ca
  readOnly: true
{{- end }}
{{- if $v.tls.clientCertSecret }}
- name: tls-client
  mountPath: /tls-client
  readOnly: true
{{- end }}
{{- if $v.httpProxy.credentialsSecret }}
- name: proxy-credentials
  mountPath: /proxy-credentials
  readOnly: true
{{- end }}
{{- if $v.httpProxy.caSecret }}
- name: proxy-ca
  mountPath: /proxy-ca
  readOnly: true
{{- end }}
{{- if $v.guard.enabled }}
- name: guard
  mountPath: /guard
  readOnly: true
{{- end }}
{{- if and $v.otlp.endpoint $v.otlp.caSecret }}
- name: otlp-ca
  mountPath: /otlp-ca
  readOnly: true
{{- end }}
{{- end }}

{{/* A volume with some keys of a Secret, each as a file of its name. */}}
{{- define "postern-agent.secretVolume" -}}
- name: {{ .name | quote }}
  secret:
    secretName: {{ .secret | quote }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - key: {{ . }}
        path: {{ . | quote }}
      {{- end }}
{{- end }}

{{/* The volumes of both. Whole ones, never subPath: the kubelet renews those, and the agent reads what has changed. */}}
{{- define "postern-agent.volumes" -}}
{{- $v := .Values -}}
{{ include "postern-agent.secretVolume" (dict "name" "token" "secret" (include "postern-agent.tokenSecret" .) "keys" (list "token")) }}
# What requests to the API server carry: a token that expires and is renewed by the kubelet.
- name: service-account
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: {{ base $v.saTokenPath | quote }}
          expirationSeconds: {{ int $v.saToken.expirationSeconds }}
          {{- with $v.saToken.audience }}
          audience: {{ . | quote }}
          {{- end }}
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- with $v.tls.serverCASecret }}
{{ include "postern-agent.secretVolume" (dict "name" "tls-server-ca" "secret" . "keys" (list "ca.crt")) }}
{{- end }}
{{- with $v.tls.clientCertSecret }}
{{ include "postern-agent.secretVolume" (dict "name" "tls-client" "secret" . "keys" (list "tls.crt" "tls.key")) }}
{{- end }}
{{- with $v.httpProxy.credentialsSecret }}
{{ include "postern-agent.secretVolume" (dict "name" "proxy-credentials" "secret" . "keys" (list "credentials")) }}
{{- end }}
{{- with $v.httpProxy.caSecret }}
{{ include "postern-agent.secretVolume" (dict "name" "proxy-ca" "secret" . "keys" (list "ca.crt")) }}
{{- end }}
{{- if $v.guard.enabled }}
- name: guard
  configMap:
    name: "{{ include "postern-agent.fullname" . }}-guard"
{{- end }}
{{- if and $v.otlp.endpoint $v.otlp.caSecret }}
{{ include "postern-agent.secretVolume" (dict "name" "otlp-ca" "secret" $v.otlp.caSecret "keys" (list "ca.crt")) }}
{{- end }}
{{- end }}

{{/* As whom a pod runs. OpenShift gives each namespace users of its own, and takes no other. */}}
{{- define "postern-agent.podSecurity" -}}
runAsNonRoot: true
{{- if not (.Capabilities.APIVersions.Has "security.openshift.io/v1") }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "postern-agent.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
