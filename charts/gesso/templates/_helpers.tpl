{{- define "gesso.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "gesso.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "gesso.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gesso.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "gesso.operator" -}}
{{- include "gesso.fullname" . }}-operator
{{- end -}}

{{- define "gesso.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "gesso.operator" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "gesso.lease" -}}
{{- .Values.leaseName | default (include "gesso.operator" .) -}}
{{- end -}}

{{- /* What selects the operator's pods. Names of what a DiffusionService owns carry another component. */ -}}
{{- define "gesso.selector" -}}
app.kubernetes.io/name: gesso
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "gesso.labels" -}}
{{ include "gesso.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* An image: (list CONTEXT PART). */ -}}
{{- define "gesso.image" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $images := $root.Values.images -}}
{{- get $images $part | default (printf "%s/%s:%s" $images.registry $part ($images.tag | default $root.Chart.AppVersion)) -}}
{{- end -}}

{{- /* Whether any service's pods are given defaults: empty, or not. */ -}}
{{- define "gesso.podDefaults" -}}
{{- range $part, $template := .Values.podDefaults -}}
{{- if or $template.spec ($template.metadata).labels ($template.metadata).annotations }}yes{{ end -}}
{{- end -}}
{{- end -}}
