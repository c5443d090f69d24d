{{/* Certificates: a Secret for each component, from cert-manager or the operator, mounted as files under /tls. */}}

{{/* SPIFFE id of a component: dict root, name. */}}
{{- define "bonafide.identity" -}}
spiffe://{{ .root.Values.tls.trustDomain }}/ns/{{ .root.Release.Namespace }}/sa/{{ include "bonafide.fullname" .root }}-{{ .name }}
{{- end -}}

{{/* Name of the Secret of a component: dict root, name. */}}
{{- define "bonafide.tlsSecret" -}}
{{- $tls := .root.Values.tls -}}
{{- if eq $tls.mode "secrets" -}}
{{- get $tls.secrets .name | required (printf "tls.secrets.%s: name of the Secret with tls.crt, tls.key and ca.crt" .name) -}}
{{- else -}}
{{ include "bonafide.fullname" .root }}-{{ .name }}-tls
{{- end -}}
{{- end -}}

{{/* Volumes of a component, as a list under "items": dict root, name. */}}
{{- define "bonafide.tlsVolumes" -}}
items:
{{- if ne .root.Values.tls.mode "off" }}
  - name: tls
    secret:
      secretName: {{ include "bonafide.tlsSecret" . }}
      defaultMode: 0440
  {{- if and (eq .name "gateway") .root.Values.tls.callers.secret }}
  - name: tls-callers
    secret:
      secretName: {{ .root.Values.tls.callers.secret }}
      defaultMode: 0440
  {{- end }}
{{- end }}
{{- end -}}
