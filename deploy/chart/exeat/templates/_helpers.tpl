{{- define "exeat.labels" -}}
app.kubernetes.io/name: exeat
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: exeat
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{- define "exeat.selector" -}}
app.kubernetes.io/name: exeat
app.kubernetes.io/component: operator
{{- end -}}

{{/* Names and namespace are fixed: certificates, admission and the webhooks' service refer to them. */}}
{{- define "exeat.namespace" -}}
{{- if ne .Release.Namespace "exeat-system" -}}
{{- fail "Exeat is installed into the namespace exeat-system: add --namespace exeat-system" -}}
{{- end -}}
exeat-system
{{- end -}}
