{{/* Where spans go: settings of the services, flags of Triton, and the ports that network policies open. */}}

{{/* Settings of every service, YAML: setting to text. */}}
{{- define "bonafide.tracingSettings" -}}
{{- $tracing := .Values.tracing -}}
{{- if $tracing.endpoint -}}
{{- if and (ne .Values.tls.mode "off") (hasPrefix "http://" $tracing.endpoint) -}}
{{- fail "tracing.endpoint: with tls.mode on nothing leaves a service in plain text; give https://" -}}
{{- end -}}
OTLP_ENDPOINT: {{ $tracing.endpoint | quote }}
TRACE_SAMPLE_RATIO: {{ $tracing.sampleRatio | toString | quote }}
TRACE_SLOW_SECONDS: {{ $tracing.slowSeconds | toString | quote }}
{{- if $tracing.authoritiesSecret }}
OTLP_AUTHORITIES: /receiver/ca.crt
{{- end }}
{{- end -}}
{{- end -}}

{{/* Flags of tritonserver, as a list under "items": spans of calls that carry a trace, and of others practically none. */}}
{{- define "bonafide.tritonTracing" -}}
items:
{{- with .Values.tracing.tritonEndpoint }}
  - --trace-config=mode=opentelemetry
  - --trace-config=level=TIMESTAMPS
  - --trace-config=rate=2147483647
  - --trace-config=opentelemetry,url={{ . }}
  - --trace-config=opentelemetry,resource=service.name=triton
  - --trace-config=opentelemetry,resource=service.namespace=bonafide
  - --trace-config=opentelemetry,bsp_schedule_delay=1000
{{- end }}
{{- end -}}

{{/* Port of a URL: the text. */}}
{{- define "bonafide.portOf" -}}
{{ regexFind "[0-9]+$" (urlParse .).host }}
{{- end -}}
