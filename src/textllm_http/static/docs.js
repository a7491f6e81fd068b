// Swagger UI would fill each text of a form with "string" and send those that are empty. The service refuses both,
// so texts begin empty, and the empty ones are left out.
const withEmptyForms = (api) => {
  for (const operation of Object.values(api.paths).flatMap(Object.values)) {
    const fields = operation.requestBody?.content["multipart/form-data"]?.schema.properties ?? {};
    for (const field of Object.values(fields)) {
      if (field.type === "string" && !field.format) field.example = "";
    }
  }
  return api;
};

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  persistAuthorization: false,
  validatorUrl: null,
  plugins: [
    {
      components: { ParameterIncludeEmpty: () => null },
      statePlugins: { spec: { wrapActions: { updateJsonSpec: (update) => (api) => update(withEmptyForms(api)) } } },
    },
  ],
});
