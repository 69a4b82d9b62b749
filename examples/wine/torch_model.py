# 13 numbers about a wine; which of three growers made it? The fields of a JSON object are one row.
# Only the model: Headrace builds it in a sandbox, where `torch`, `nn`, `F`, `Accuracy` and `Loss` are there already.
class Grower(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(13),  # alcohol is about 13, proline about 750
            nn.Linear(13, 16),
            nn.ReLU(),
            nn.Linear(16, 3),
        )

    def forward(self, x):
        return self.layers(x)

    def loss_fn(self):
        return nn.CrossEntropyLoss()

    def optimizer(self):
        return torch.optim.Adam(model.parameters(), lr=0.01)

    def metrics(self):
        return {"accuracy": Accuracy(), "loss": Loss(self.loss_fn())}


model = Grower()
