{{/* Ports, Services and gateways that lead nowhere, or where nobody should come. One refusal in each line. */}}
{{- define "postern-server.refusalsOfWays" -}}
{{- $v := .Values }}
{{- $g := $v.gateway }}
{{- if eq $v.service.type "ClusterIP" }}
{{- if $v.service.nodePort }}
service.nodePort: a Service of type ClusterIP has none: set service.type to NodePort or LoadBalancer
{{- end }}
{{- if $v.service.externalTrafficPolicy }}
service.externalTrafficPolicy: nothing from outside reaches a Service of type ClusterIP: set service.type to NodePort or LoadBalancer
{{- end }}
{{- end }}
{{- if and $v.opsPort (eq (int $v.opsPort) (int $v.service.internalPort)) }}
opsPort: is the same as service.internalPort, and one Service has both
{{- end }}
{{- if not $v.opsPort }}
{{- range $v.trustedProxies }}
{{- if hasPrefix "proxy:" . }}
opsPort: {{ . }} of trustedProxies expects a PROXY header on every port but that of opsPort, and the kubelet's probes have none: give health and metrics a port of their own, for instance 8082
{{- end }}
{{- end }}
{{- end }}
{{- if and (or $v.argocd.enabled $v.argocd.managed) (not $v.argocd.namespace) }}
argocd.namespace: name the namespace in which Argo CD keeps its Secrets
{{- end }}
{{- if $g.enabled }}
{{- $names := concat (list $g.hostname) ($g.hostnames | default list) | compact }}
{{- if and (eq $g.tlsMode "Passthrough") (not $names) }}
gateway.hostname: with gateway.tlsMode Passthrough the name is all by which the gateway finds this server: give it, or gateway.hostnames
{{- end }}
{{- if and $g.create $g.certIssuer (eq $g.tlsMode "Terminate") (not $names) }}
gateway.hostname: gateway.certIssuer signs for names: give it, or gateway.hostnames
{{- end }}
{{- end }}
{{- end }}
